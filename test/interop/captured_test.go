package interop

import (
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
)

const (
	trace   = `{"role":"user","content":"h\u00e9"}` + "\n" + `{"role":"assistant","content":"done"}` + "\n"
	effects = `{"ts":"2026-01-01T00:00:00Z","tool_id":"shell","idempotency_key":"k","side_effect_class":"idempotent"}` + "\n"
)

// TestCaptured: what pfmount captures and pushes, pf restores byte for byte under the same id.
func TestCaptured(t *testing.T) {
	for name := range trees {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			src := p.build(name)
			p.ok("push", "--agent", "claude-code", "--name", "t\"\u00e9", "--env", "--trace",
				p.WriteFile("trace", []byte(trace), 0o644),
				"--effects", p.WriteFile("effects", []byte(effects), 0o644), src, p.ref("v1"))
			cid := p.inspect(p.ref("v1")).CID
			p.mounted(src, p.ref("v1"))
			p.pull(p.url("v1"), cid)
			if out := p.pf("verify", "--deep"); !strings.Contains(out, " 0 bad. ") ||
				!strings.Contains(out, "1 skipped") {
				t.Errorf("pf verify: %q", out)
			}
			restored(t, src, p.checkout(cid))
			p.mounted(src, "store:"+cid)
			if name == "many" {
				return // the rest is the same for many files, and pf takes minutes
			}
			p.ways(src, cid)
		})
	}
}

// ways carries an image of the registry and of pf's store through everything that both can read.
func (p *pair) ways(src, cid string) {
	p.t.Helper()
	// From pfmount to pf.
	p.ok("pull", p.ref("v1"), "file://"+p.Path("folder"))
	p.cid("file://"+p.Path("folder"), cid)
	p.ok("pull", "--store", p.Path("store2"), p.ref("v1"), "store:")
	p.Set("PF_STORE", p.Path("store3"))
	p.pull("file://"+p.Path("folder"), cid)
	restored(p.t, src, p.checkout(cid))
	p.Set("PF_STORE", p.Path("store2"))
	if out := p.pf("verify"); !strings.Contains(out, " 0 bad. ") {
		p.t.Errorf("pf verify of the store that pfmount filled: %q", out)
	}
	restored(p.t, src, p.checkout(cid))
	// From pf to pfmount.
	p.pf("push", cid, "file://"+p.Path("folder2"))
	p.mounted(src, "file://"+p.Path("folder2"))
	p.cid("file://"+p.Path("folder2"), cid)
	p.pf("push", cid, p.url("v2"))
	p.mounted(src, p.ref("v2"))
	p.cid(p.ref("v2"), cid)
	// From pf's folder and store back into the registry, through pfmount.
	p.ok("push", "file://"+p.Path("folder2"), p.ref("v3"))
	p.ok("push", "--store", p.Path("store2"), "store:"+cid, p.ref("v4"))
	p.Set("PF_STORE", p.Path("store4"))
	p.pull(p.url("v3"), cid)
	p.pull(p.url("v4"), cid)
}

// TestSnapshot: what pf captures and pushes, pfmount mounts; and it carries it without a change of id.
func TestSnapshot(t *testing.T) {
	for name := range trees {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			src := p.build(name)
			cid := p.snapshot(src, "--trace-from-jsonl", p.WriteFile("trace", []byte(trace), 0o644))
			p.pf("push", cid, p.url("v1"))
			p.cid(p.ref("v1"), cid)
			p.mounted(src, p.ref("v1"))
			p.Registry().Reset()
			p.ok("push", "store:"+cid, p.ref("again"))
			if n := p.Registry().Count(faultreg.Match{Method: "PUT"}); n != 1 {
				t.Errorf("%d PUTs over the reference's own push, want the manifest's alone", n)
			}
			if name != "many" {
				p.ways(src, cid)
			}
		})
	}
}

// TestSpecial: where pf would wait for ever, pfmount warns, and pf restores the rest.
func TestSpecial(t *testing.T) {
	p := newPair(t)
	src := p.build("shapes")
	p.Sh(`mkfifo "$1/empty2/fifo"`, src).Want(t, 0)
	p.ok("push", src, p.ref("v1")).Want(t, 0, "empty2/fifo", "a FIFO")
	p.Sh(`rm "$1/empty2/fifo"`, src).Want(t, 0)
	cid := p.inspect(p.ref("v1")).CID
	p.pull(p.url("v1"), cid)
	restored(t, src, p.checkout(cid))
}

// TestSameTree: both record one folder in the very same bytes.
func TestSameTree(t *testing.T) {
	for _, name := range []string{"names", "modes", "shapes", "bare"} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			src := p.build(name)
			cid := p.snapshot(src)
			p.ok("push", src, p.ref("v1"))
			theirs, ours := p.Mount("store:"+cid), p.Mount(p.ref("v1"))
			for _, top := range []string{"fs", "procs"} {
				a, b := digest(t, theirs.Read("manifest.json"), top), digest(t,
					ours.Read("manifest.json"), top)
				if a != b {
					t.Errorf("world.%s: pf has\n%.2000s\npfmount has\n%.2000s", top,
						theirs.Read(blobPath(a)), ours.Read(blobPath(b)))
				}
			}
		})
	}
}
