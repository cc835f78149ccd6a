package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// toolSpec is a tree for the programs that people run on it.
func toolSpec() imgbuild.Spec {
	return imgbuild.Spec{
		Top: map[string][]byte{"model.diff": noise(3 << 20)},
		Entries: []imgbuild.Entry{
			imgbuild.Dir("bin", "0755"), imgbuild.Dir("empty", "0700"),
			imgbuild.File("bin/hello", "0755",
				imgbuild.Text("#!/bin/sh\necho \"hello $1 from $(dirname \"$0\")\"\n")),
			imgbuild.File("lib/answer/__init__.py", "0644", imgbuild.Text("from .deep import value\n")),
			imgbuild.File("lib/answer/deep.py", "0644", imgbuild.Text("value = 42\n")),
			imgbuild.File("big", "0600", imgbuild.Pattern{Seed: 4, Len: 5_000_001}),
			imgbuild.File("none", "0644", imgbuild.Text("")),
			imgbuild.File("one", "0444", imgbuild.Text("x")),
			imgbuild.File("space and ü\nline", "0640", imgbuild.Text("odd needle name\n")),
			imgbuild.Symlink("link", "bin/hello"), imgbuild.Symlink("dangling", "nowhere"),
			imgbuild.Symlink("dirlink", "bin"),
		},
		Seq: imgbuild.Folders(5, 20, func(n int) imgbuild.Content {
			if n%10 == 3 {
				return imgbuild.Text(fmt.Sprintf("file %d has the needle\n", n))
			}
			return imgbuild.Text(fmt.Sprintf("file %d\n", n))
		}),
	}
}

// copies are programs that copy a tree $1 to the empty folder $2.
var copies = map[string]string{
	"cp":    `cp -a "$1"/. "$2"`,
	"tar":   `tar -C "$1" -cf - . | tar -C "$2" -xpf -`,
	"rsync": `rsync -a --checksum "$1"/ "$2"/; [ -z "$(rsync -ain --checksum "$1"/ "$2"/)" ]`,
}

// TestCopyTools: what cp -a, tar and rsync copy from a cold mount is the tree.
func TestCopyTools(t *testing.T) {
	t.Parallel()
	for name, script := range copies {
		t.Run(name, func(t *testing.T) {
			harness.Each(t, func(t *testing.T, e *harness.Env) {
				spec := toolSpec()
				want, err := spec.Want()
				if err != nil {
					t.Fatal(err)
				}
				m := e.Mount(e.Push(harness.Build(t, spec)))
				copied(t, e, script, m.Path("world/fs"), want)
				basic := e.Mount(e.Push(harness.Fixture(t, "basic")))
				copied(t, e, script, basic.Path("world/fs"), harness.Want(t, "basic"))
			})
		})
	}
}

// copied copies a folder with a script and compares the copy.
func copied(t *testing.T, e *harness.Env, script, from string, want []imgbuild.Want) {
	t.Helper()
	out := e.MakeDir(fmt.Sprintf("out%x", harness.SHA256([]byte(from))[:8]))
	if r := e.Sh(script, from, out).Want(t, 0); r.Stderr != "" {
		t.Errorf("complaints: %v", r)
	}
	nodes, err := harness.Walk(out, true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := harness.Diff(nodes, want); len(diff) > 0 {
		t.Errorf("the copy differs:\n%s", strings.Join(diff[:min(20, len(diff))], "\n"))
	}
}

// lookers are programs whose output on the mount is their output on a copy; $1 is the tree.
var lookers = map[string]string{
	"grep":       `cd "$1"; grep -r needle . | sort`,
	"grep count": `cd "$1"; grep -rc needle . | sort`,
	"find files": `cd "$1"; find . -type f | sort`,
	"find dirs":  `cd "$1"; find . -type d | sort`,
	"find links": `cd "$1"; find . -type l -printf '%p %l\n' | sort`,
	"find ls":    `cd "$1"; find . -type f -printf '%p %m %s %n %U %G\n' | sort`,
	"md5sum":     `cd "$1"; find . -type f -exec md5sum {} + | sort`,
	"du":         `cd "$1"; find . -type f -exec du --apparent-size -B1 {} + | sort`,
	"cat":        `cd "$1"; find . -type f -print0 | sort -z | xargs -0 cat | sha256sum`,
	"wc":         `cd "$1"; find . -type f -print0 | sort -z | xargs -0 wc`,
	"head tail":  `cd "$1"; head -c 5000 big | tail -c 777 | sha256sum; tail -c +4999000 big | sha256sum`,
	"cmp":        `cd "$1"; cmp big big; cmp -s big one || echo differ`,
	"readlink":   `cd "$1"; readlink link dangling dirlink; cat dirlink/hello`,
	"exec":       `cd "$1"; bin/hello you; ./link you`,
	"python":     `cd "$1"; PYTHONPATH=lib python3 -B -c 'import answer; print(answer.value)'`,
	"sort":       `cd "$1"; sort d0003/*`,
	"tar list":   `cd "$1"; tar cf - --sort=name . | tar tvf - | awk '{print $1, $3, $6}'`,
}

// TestLookers: programs that read print on a cold mount what they print on a plain copy.
func TestLookers(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		ref := e.Push(harness.Build(t, toolSpec()))
		model, plain := e.Mount(ref), e.MakeDir("plain")
		e.Sh(copies["cp"], model.Path("world/fs"), plain).Want(t, 0)
		model.Unmount()
		for name, script := range lookers {
			e.Run("cache", "clear").Want(t, 0)
			m := e.Mount(ref)
			got := e.Sh(script, m.Path("world/fs")).Want(t, 0)
			want := e.Sh(script, plain).Want(t, 0)
			if got.Stdout != want.Stdout || got.Stderr != want.Stderr || got.Stdout == "" {
				t.Errorf("%s: on the mount %v\non a copy %v", name, got, want)
			}
			m.Unmount()
		}
	})
}

// TestOddReads: dd at odd offsets and sizes, forwards, backwards and past the end, also uncached.
func TestOddReads(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		p := imgbuild.Pattern{Seed: 8, Len: 3_000_017}
		m := e.Mount(e.Push(harness.Build(t,
			imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.File("f", "0644", p)}})))
		for _, o := range []struct{ bs, skip, count int64 }{
			{4093, 700, 3}, {1, 2_999_999, 30}, {131_071, 5, 2}, {1_000_003, 1, 1},
			{1_000_003, 2, 1}, {7, 0, 100}, {513, 3000, 9},
			{65_537, 44, 5}, {4096, 1, 1}, {3_000_017, 0, 1}, {3_000_016, 0, 1}, {3_000_017, 1, 1},
			{999, 100_000, 1},
		} {
			want := make([]byte, o.bs*o.count)
			n, _ := p.ReadAt(want, o.bs*o.skip) // short at the end
			for _, flag := range []string{"fullblock", "direct"} {
				// A block beyond the end is a complaint of dd's, not an error.
				r := e.Sh(`dd if="$1" bs="$2" skip="$3" count="$4" iflag="$5" status=none | sha256sum`, m.Path("world/fs/f"),
					fmt.Sprint(o.bs), fmt.Sprint(o.skip), fmt.Sprint(o.count), flag).Want(t, 0)
				if r.Stdout[:64] != harness.SHA256(want[:n]) {
					t.Errorf("dd bs=%d skip=%d count=%d iflag=%s: wrong bytes", o.bs, o.skip, o.count, flag)
				}
			}
		}
	})
}
