package pfimg

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/sign"
)

// tags are the images in testdata: manifests, signatures, trees and page tables that the reference
// tool wrote. A ninth, signed with a key of its own, has the manifest of basic.
var tags = []string{"basic", "fork-a", "fork-b", "merged", "minimal", "nothing", "pages", "many"}

func read(t testing.TB, parts ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func loadFixture(t testing.TB, tag string) (*Manifest, Opener) {
	t.Helper()
	v, err := sign.Policy{}.Verify(read(t, tag, "manifest.json"), read(t, tag, "manifest.json.sig"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(v)
	if err != nil {
		t.Fatal(err)
	}
	return m, serve(read(t, tag, "tree.json"), read(t, tag, "pages.json"))
}

// serve opens those of the blobs that Build may open, and closes nothing unasked.
func serve(blobs ...[]byte) Opener {
	byDigest := make(map[Digest][]byte)
	for _, b := range blobs {
		byDigest[sha256.Sum256(b)] = b
	}
	return func(_ context.Context, d Digest) (io.ReadCloser, error) {
		b, ok := byDigest[d]
		if !ok {
			return nil, fmt.Errorf("nobody should open %s", d)
		}
		return io.NopCloser(bytes.NewReader(b)), nil
	}
}

// hash is the digest of text.
func hash(text string) Digest { return sha256.Sum256([]byte(text)) }

// emptyTable is a page table without pages.
const emptyTable = `{"layout":"paged-batchinvariant-v1","pages":[]}`

// testManifest is a manifest whose tree and page table are these.
func testManifest(tree, table string) *Manifest {
	m := &Manifest{Signed: Signed{Raw: []byte("{}"), Signature: []byte("{sig}"), Signer: sign.SignerNone}}
	m.ID = sha256.Sum256(m.Raw)
	m.World = World{FS: hash(tree), Env: hash("env"), Procs: hash("procs")}
	m.Model = Model{Base: hash("base"), Diff: hash("diff")}
	m.Cache = Cache{Layout: pageLayout, Manifest: hash(table)}
	m.Effects.Ledger, m.Trace.Messages = hash("ledger"), hash("messages")
	return m
}

func buildFrom(tree, table string, maxEntries int) (*Index, error) {
	return build(context.Background(), testManifest(tree, table),
		serve([]byte(tree), []byte(table)), maxEntries)
}

// treeOf makes a tree of entries, each the inside of its braces.
func treeOf(entries ...string) string {
	var list []string
	for _, e := range entries {
		list = append(list, "{"+e+"}")
	}
	return `{"kind":"fs.tree.v1","entries":[` + strings.Join(list, ",") + "]}"
}

// text is s as a JSON string.
func text(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// file, dir and ln are insides of entries; the content of a file is its size in x.
func file(path string, size int) string {
	return fmt.Sprintf(`"path":%s,"mode":"0644","size":%d,"kind":"file","blob":"%s"`, text(path),
		size, hash(strings.Repeat("x", size)))
}

func dir(path string) string {
	return fmt.Sprintf(`"path":%s,"mode":"0755","size":0,"kind":"dir"`, text(path))
}

func ln(path, target string) string {
	return fmt.Sprintf(`"path":%s,"mode":"0777","size":%d,"kind":"symlink","blob":"%s","link_target":%s`, text(path), len(target), hash(target), text(target))
}

// line describes a row in one line.
func line(x *Index, r Row) string {
	a, ok := x.Attr(r)
	if !ok {
		return "no row"
	}
	switch a.Kind {
	case Dir:
		return fmt.Sprintf("dir %04o nlink %d", a.Mode, a.Nlink)
	case Symlink:
		target, _ := x.Link(r)
		return fmt.Sprintf("symlink %04o %d -> %s", a.Mode, a.Size, target)
	}
	return fmt.Sprintf("file %04o %d", a.Mode, a.Size)
}

// list describes everything below a path, by path, and checks on the way that all ways to a row agree.
func list(t testing.TB, x *Index, from string) map[string]string {
	t.Helper()
	top, ok := x.Find(from)
	if !ok {
		t.Fatalf("%s is not there", from)
	}
	all := make(map[string]string)
	var walk func(dir Row, prefix string)
	walk = func(dir Row, prefix string) {
		subdirs := uint32(0)
		for i := 0; ; i++ {
			row, name, ok := x.Child(dir, i)
			if !ok {
				break
			}
			path := prefix + name
			if got, ok := x.Lookup(dir, name); !ok || got != row {
				t.Fatalf("%q: Child says row %d, Lookup %d %v", path, row, got, ok)
			}
			if got := x.Parent(row); got != dir {
				t.Fatalf("%q: Parent says %d, want %d", path, got, dir)
			}
			if got, ok := x.Find(x.Path(row)); !ok || got != row {
				t.Fatalf("%q: Find of Path %q says row %d %v, want %d", path, x.Path(row), got, ok, row)
			}
			if _, there := all[path]; there {
				t.Fatalf("%q is listed twice", path)
			}
			all[path] = line(x, row)
			if a, _ := x.Attr(row); a.Kind == Dir {
				subdirs++
				walk(row, path+"/")
			}
		}
		if a, _ := x.Attr(dir); a.Nlink != 2+subdirs || a.Size != 0 {
			t.Fatalf("%q: nlink %d, size %d, want %d and 0", prefix, a.Nlink, a.Size, 2+subdirs)
		}
	}
	walk(top, "")
	return all
}

func wantError(t *testing.T, err, want error, says string) {
	t.Helper()
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Fatalf("got error %v, want %v", err, want)
	}
	if err == nil {
		return
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("error %q does not say %q", err, says)
	}
	if len(err.Error()) > 2000 || strings.ContainsAny(err.Error(), "\x00\n\x1b") {
		t.Errorf("error is not fit to show: %q", err)
	}
}
