package e2e

import (
	"fmt"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestDecodedSizes: what is shown and read is the decoded file, for files that compress well, not
// at all, and that are empty; sizes are there before anything is fetched.
func TestDecodedSizes(t *testing.T) {
	t.Parallel()
	contents := map[string]imgbuild.Content{
		"text":  imgbuild.Pattern{Seed: 9, Len: 10_000_000},
		"noise": imgbuild.Noise{Seed: 2, Len: 777_777}, "empty": imgbuild.Text(""),
	}
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		spec := imgbuild.Spec{}
		for name, c := range contents {
			spec.Entries = append(spec.Entries, imgbuild.File(name, "0644", c))
		}
		img := harness.Build(t, spec)
		ref := e.Push(img)
		m := e.Mount(ref)
		if wire := img.Layer(img.Digest("world/fs/text")).Size; wire > 1_000_000 {
			t.Fatalf("the text takes %d bytes on the wire", wire)
		}
		if wire := img.Layer(img.Digest("world/fs/noise")).Size; wire <= 777_777 {
			t.Fatalf("the noise takes only %d bytes on the wire", wire)
		}
		e.Registry().Reset()
		for name, c := range contents {
			if n := numbers(t, e.Sh(`stat -c %s "$1"`, m.Path("world/fs/"+name)).Want(t,
				0).Stdout)[0]; n != c.Size() {
				t.Errorf("%s: size %d before any read, want %d", name, n, c.Size())
			}
		}
		silent(t, e.Registry(), "stat")
		for name, c := range contents {
			e.Sh(readEveryWay, m.Path("world/fs/"+name), fileOf(t, e, name, c),
				e.Path("tmp/"+name)).Want(t, 0)
		}
	})
}

// readEveryWay compares what programs read from $1 with the file $2; $3 is a scratch name.
const readEveryWay = `
[ "$(wc -c <"$1")" = "$(wc -c <"$2")" ]
[ "$(cat "$1" | sha256sum)" = "$(cat "$2" | sha256sum)" ]
cmp <(tail -c 100 "$1") <(tail -c 100 "$2")
cmp <(tail -n 2 "$1") <(tail -n 2 "$2")
size=$(stat -c %s "$2")
for at in 0 1 $((size/2)) $((size > 50 ? size-50 : 0)) $((size+10)); do
  cmp <(dd if="$1" bs=1 skip=$at count=200 status=none 2>/dev/null) <(dd if="$2" bs=1 skip=$at count=200 status=none 2>/dev/null)
done
cp "$1" "$3" && cmp "$3" "$2"
`

// fileOf writes a content to a file of the user's.
func fileOf(t *testing.T, e *harness.Env, name string, c imgbuild.Content) string {
	t.Helper()
	b := make(buffer, 0, c.Size())
	if _, err := c.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return e.WriteFile("want-"+name, b, 0o644)
}

// TestCopies: names that share a digest are all there, each with its own mode and inode, and are
// fetched once; what is dropped from the cache for one is there again for another.
func TestCopies(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		var spec imgbuild.Spec
		for i := range 1000 {
			spec.Entries = append(spec.Entries,
				imgbuild.File(fmt.Sprintf("empty/%d", i), "0644", imgbuild.Text("")))
		}
		for i := range 50 {
			mode := []string{"0644", "0600", "0755", "0444", "0400"}[i%5]
			spec.Entries = append(spec.Entries,
				imgbuild.File(fmt.Sprintf("copies/%d", i), mode, imgbuild.Text("one text, many names\n")))
		}
		img := harness.Build(t, spec)
		want, err := spec.Want()
		if err != nil {
			t.Fatal(err)
		}
		ref, srv := e.Push(img), e.Registry()
		m := e.Mount(ref)
		srv.Reset()
		m.Compare("world/fs", want)
		text, empty := img.WireOf("world/fs/copies/0"), img.WireOf("world/fs/empty/0")
		got := srv.Gets(faultreg.Blob)
		if got[text] != 1 || got[empty] > 1 || len(got) > 2 {
			t.Errorf("asked for %v, want the text once and the empty blob at most once", got)
		}
		inodes := map[uint64]string{}
		for _, n := range m.Tree("world/fs", false) {
			if other := inodes[n.Stat.Ino]; other != "" {
				t.Errorf("%s and %s are one inode", n.Path, other)
			}
			inodes[n.Stat.Ino] = n.Path
		}
		e.Run("cache", "clear").Want(t, 0)
		harness.DropCaches(t)
		m.Compare("world/fs", want)
	})
}
