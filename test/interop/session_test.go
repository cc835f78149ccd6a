package interop

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// digest gives a digest of world's from a manifest.
func digest(t *testing.T, manifest []byte, name string) string {
	t.Helper()
	var m struct{ World map[string]string }
	if err := json.Unmarshal(manifest, &m); err != nil {
		t.Fatal(err)
	}
	return m.World[name]
}

// blobPath is where a mount shows a blob.
func blobPath(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return "blobs/sha256/" + hex[:2] + "/" + hex
}

// TestForkAndMerge: what pf forks and merges, pfmount mounts, also when pfmount captured what was merged.
func TestForkAndMerge(t *testing.T) {
	captures := map[string]func(p *pair, dir, parent string) string{
		"pf": func(p *pair, dir, parent string) string {
			args := []string{"--trace-from-jsonl", p.Path("trace")}
			if parent != "" {
				args = append(args, "--parent", parent)
			}
			return p.snapshot(dir, args...)
		},
		"pfmount": func(p *pair, dir, parent string) string {
			args := []string{"push", "--trace", p.Path("trace"), "--effects", p.Path("effects")}
			if parent != "" {
				args = append(args, "--parent", parent)
			}
			p.ok(append(args, dir, p.ref("captured"))...)
			f := p.inspect(p.ref("captured"))
			if parent != "" && !slices.Equal(f.Parents, []string{parent}) {
				p.t.Errorf("parents %v, want %s", f.Parents, parent)
			}
			p.pull(p.url("captured"), f.CID)
			return f.CID
		},
	}
	for name, capture := range captures {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.WriteFile("trace", []byte(trace), 0o644)
			p.WriteFile("effects", []byte(effects), 0o644)
			src := p.build("shapes")
			base := capture(p, src, "")
			p.pf("push", base, p.url("base"))
			p.mounted(src, p.ref("base"))
			forks := strings.Fields(p.pf("fork", "-n", "2", base))
			forks = slices.DeleteFunc(forks,
				func(s string) bool { return !strings.HasPrefix(s, "sha256:") || len(s) != 71 })
			forks = slices.DeleteFunc(slices.Compact(forks), func(s string) bool { return s == base })
			if len(forks) != 2 {
				t.Fatalf("forks %v", forks)
			}
			var branches []string
			for i, fork := range forks {
				p.pf("push", fork, p.url("fork"+string(rune('a'+i))))
				p.mounted(src, p.ref("fork"+string(rune('a'+i))))
				dir := p.checkout(fork)
				os.Remove(dir + "/.pfcid")
				if err := os.WriteFile(dir+"/new"+string(rune('a'+i)), []byte(fork), 0o644); err != nil {
					t.Fatal(err)
				}
				branches = append(branches, capture(p, dir, fork))
			}
			out := p.pf("merge", "--into", branches[0], branches[1])
			merged := lastID(t, out, branches)
			p.pf("push", merged, p.url("merged"))
			p.mounted(p.checkout(merged), p.ref("merged"))
			f := p.inspect(p.ref("merged"))
			if f.CID != merged || len(f.Parents) != 2 {
				t.Errorf("merged: %+v", f)
			}
			if p.tree(p.ref("merged"), "newa") != forks[0] || p.tree(p.ref("merged"), "newb") != forks[1] {
				t.Error("the merge has not both sides' files")
			}
		})
	}
}

// tree gives a file of an image's tree.
func (p *pair) tree(ref, name string) string {
	p.t.Helper()
	return p.ok("cat", ref, "world/fs/"+name).Stdout
}

// lastID finds the id that pf printed, which is none of those known.
func lastID(t *testing.T, out string, known []string) string {
	t.Helper()
	var last string
	for _, word := range strings.FieldsFunc(out,
		func(r rune) bool { return !strings.ContainsRune("sha256:abcdef0123456789", r) }) {
		if strings.HasPrefix(word, "sha256:") && len(word) == 71 && !slices.Contains(known, word) {
			last = word
		}
	}
	if last == "" {
		t.Fatalf("no id in %q", out)
	}
	return last
}

// TestGit: a repository is whole in the mount: .git is captured, and git runs on it.
func TestGit(t *testing.T) {
	p := newPair(t)
	repo := p.MakeDir("repo")
	p.Sh(`cd "$1"; git init -q -b main; git config user.name n; git config user.email e@example.org
		for i in $(seq 30); do mkdir -p d$((i%5)); echo "line $i" > d$((i%5))/f$i; git add .; git commit -qm "commit $i"; done
		git gc -q; git tag v1; echo more > d1/loose; git add .; git commit -qm loose; git branch side; echo dirty >> d1/f1; echo new > untracked`, repo).Want(t, 0)
	p.ok("push", repo, p.ref("v1"))
	const look = `cd "$1"; git status --porcelain; git log --all --format=%H%d; git fsck --full --strict; git diff; git show HEAD~3`
	m := p.Mount(p.ref("v1"))
	m.Compare("world/fs", want(t, repo, false))
	got, wanted := p.Sh(look, m.Path("world/fs")).Want(t, 0), p.Sh(look, repo).Want(t, 0)
	if got.Stdout != wanted.Stdout || !strings.Contains(got.Stdout, "?? untracked") {
		t.Errorf("git says in the mount\n%s\nand in the repository\n%s", got.Stdout, wanted.Stdout)
	}
	cid := p.inspect(p.ref("v1")).CID
	p.pull(p.url("v1"), cid)
	restored(t, repo, p.checkout(cid))
}

// TestKey: images signed with a key of one's own, both ways.
func TestKey(t *testing.T) {
	p := newPair(t)
	src := p.build("shapes")
	p.Set("PF_OCI_REG_SIGN_KEY", "team key")
	p.ok("push", src, p.ref("v1"))
	cid := p.inspect(p.ref("v1")).CID
	p.pull(p.url("v1"), cid)
	p.pf("push", cid, p.url("v2"))
	p.mounted(src, p.ref("v2"))
	p.Set("PF_OCI_REG_SIGN_KEY", "other")
	p.tryPF("pull", p.url("v1")).Want(t, 4)
	p.Run("inspect", p.ref("v2")).Want(t, 4)
}

// pagesScript stores a page table and pages with the reference's Python package, beside what an image has.
const pagesScript = `
import hashlib, json, os, sys
import processfork as pf
root, cid = sys.argv[1:]
store = pf.PfStore.open(root)
path = lambda c: os.path.join(root, "images", c.removeprefix("sha256:") + ".json")
m = json.load(open(path(cid)))
page = lambda i, s: hashlib.sha256(f"{i}{s}".encode()).digest() * 16
put = lambda b: pf.put_blob(store, b)
pages = [{"ix": i, "k": put(page(i, "k")), "v": put(page(i, "v"))} for i in range(12)]
table = {"layout": "paged-batchinvariant-v1", "page_size_tokens": 16, "n_layers": 2, "n_heads": 2, "head_dim": 4, "dtype": "bf16",
         "pages": pages, "logical_seqs": []}
m["cache"]["manifest"] = put(json.dumps(table).encode())
raw = json.dumps(m, separators=(",", ":"), ensure_ascii=False).encode()
new = put(raw)
open(path(new), "wb").write(raw)
print(new)
`

// TestPages: KV pages that the reference's package stored.
func TestPages(t *testing.T) {
	p := newPair(t)
	src := p.build("shapes")
	base := p.snapshot(src)
	script := p.WriteFile("pages.py", []byte(pagesScript), 0o644)
	cid := strings.TrimSpace(p.Command(p.tool("venv/bin/python"), script, p.Path("pfstore"),
		base).Wait(harness.Limit).Want(t, 0).Stdout)
	p.pf("push", cid, p.url("v1"))
	for _, ref := range []string{p.ref("v1"), "store:" + cid} {
		f := p.inspect(ref)
		if f.CID != cid || f.Pages != 12 || f.Missing != 0 {
			t.Errorf("%s: %+v", ref, f)
		}
		m := p.Mount(ref)
		names, err := os.ReadDir(m.Path("cache/pages"))
		if err != nil || len(names) != 24 || len(m.Read("cache/pages/00000011.v")) != 512 {
			t.Errorf("%s: %d pages, %v", ref, len(names), err)
		}
		m.Compare("world/fs", want(t, src, false))
		m.Unmount()
	}
	p.ok("verify", p.ref("v1"))
	p.ways(src, cid)
}
