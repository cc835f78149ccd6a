package imgbuild

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const fixtures = "../testdata/fixtures"

// TestFixturesAgain reads each fixture of the layout and writes it again: manifest and index stay the
// same bytes, ids are those of cids.txt, signatures are what Sign makes.
func TestFixturesAgain(t *testing.T) {
	cids, err := os.ReadFile(filepath.Join(fixtures, "cids.txt"))
	if err != nil {
		t.Fatal(err)
	}
	tags, err := Tags(filepath.Join(fixtures, "layout"))
	if err != nil || len(tags) != 9 {
		t.Fatalf("tags %v, %v", tags, err)
	}
	out := t.TempDir()
	for _, tag := range tags {
		img, err := FromLayout(filepath.Join(fixtures, "layout"), tag)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(cids), tag+" sha256:"+img.CID()+"\n") {
			t.Errorf("%s: id %s is not the one of cids.txt", tag, img.CID())
		}
		key := ""
		if tag == "keyed" {
			key = "bike-team-key"
		}
		if got := Sign(img.Manifest, key); !bytes.Equal(got, img.Signature) {
			t.Errorf("%s: signature\n%s, want\n%s", tag, got, img.Signature)
		}
		if err := img.WriteLayout(out, tag); err != nil {
			t.Fatal(err)
		}
	}
	if diff, err := exec.Command("diff", "-r", filepath.Join(fixtures, "layout", "blobs"),
		filepath.Join(out, "blobs")).CombinedOutput(); err != nil {
		t.Errorf("layout written again differs: %s", diff)
	}
}

// TestFolderAndStore writes fixtures as the reference keeps them and compares with what it wrote.
func TestFolderAndStore(t *testing.T) {
	out := t.TempDir()
	img, err := FromLayout(filepath.Join(fixtures, "layout"), "fork-b")
	if err != nil {
		t.Fatal(err)
	}
	if err := img.WriteFolder(filepath.Join(out, "folder")); err != nil {
		t.Fatal(err)
	}
	if diff, err := exec.Command("diff", "-r", filepath.Join(fixtures, "file-registry"),
		filepath.Join(out, "folder")).CombinedOutput(); err != nil {
		t.Errorf("file:// folder written again differs: %s", diff)
	}
	if img, err = FromLayout(filepath.Join(fixtures, "layout"), "minimal"); err != nil {
		t.Fatal(err)
	}
	if err := img.WriteStore(filepath.Join(out, "store")); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(out, "store", "images", img.CID()+".json"))
	if err != nil || !bytes.Equal(raw, img.Manifest) {
		t.Errorf("store: image file: %v", err)
	}
	for _, l := range img.Layers[1:] {
		got, err := os.ReadFile(filepath.Join(out, "store", l.Path))
		want, err2 := os.ReadFile(filepath.Join(fixtures, "store", l.Path))
		if err != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("store: %s differs: %v, %v", l.Path, err, err2)
		}
	}
}

// specOf makes the Spec of a fixture from the fixture's own parts.
func specOf(t *testing.T, img *Image) Spec {
	t.Helper()
	s := Spec{Top: map[string][]byte{}}
	for _, f := range TopFields {
		data, err := img.Decoded(f)
		if err != nil {
			t.Fatal(err)
		}
		s.Top[f] = data
	}
	var tree struct {
		Entries []struct {
			Path, Mode, Kind, Blob string
			Target                 string `json:"link_target"`
		}
	}
	if err := json.Unmarshal(s.Top["world.fs"], &tree); err != nil {
		t.Fatal(err)
	}
	delete(s.Top, "world.fs")
	for _, e := range tree.Entries {
		entry := Entry{Path: e.Path, Mode: e.Mode, Kind: e.Kind, Target: e.Target}
		if e.Blob != "" {
			data, err := img.Layer(e.Blob).Wire.decode()
			if err != nil {
				t.Fatal(err)
			}
			entry.Content = Bytes(data)
		}
		s.Entries = append(s.Entries, entry)
	}
	return s
}

// TestRebuild builds fixtures again from their parts: the tree JSON has the same digest, the order of
// the layers is the same, and with the fixture's manifest id and signature are the same.
func TestRebuild(t *testing.T) {
	for _, tag := range []string{"minimal", "nothing", "basic", "pages"} {
		t.Run(tag, func(t *testing.T) {
			old, err := FromLayout(filepath.Join(fixtures, "layout"), tag)
			if err != nil {
				t.Fatal(err)
			}
			s := specOf(t, old)
			if tag == "pages" {
				s.Pages = pagesOf(t, old)
			}
			img, err := Build(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range TopFields {
				if img.Digest(f) != old.Digest(f) {
					t.Errorf("%s: digest %s, want %s", f, img.Digest(f), old.Digest(f))
				}
			}
			if len(img.Layers) != len(old.Layers) {
				t.Fatalf("%d layers, want %d", len(img.Layers), len(old.Layers))
			}
			for i := range img.Layers {
				if img.Layers[i].Path != old.Layers[i].Path ||
					img.Layers[i].MediaType != old.Layers[i].MediaType {
					t.Errorf("layer %d: %s, want %s", i, img.Layers[i].Path, old.Layers[i].Path)
				}
			}
			img.SetManifest(old.Manifest, "")
			if img.CID() != old.CID() || !bytes.Equal(img.Signature, old.Signature) {
				t.Errorf("id or signature differ from the fixture's")
			}
		})
	}
}

func pagesOf(t *testing.T, img *Image) []Page {
	t.Helper()
	var table struct{ Pages []struct{ K, V string } }
	data, err := img.Decoded("cache.manifest")
	if err == nil {
		err = json.Unmarshal(data, &table)
	}
	if err != nil {
		t.Fatal(err)
	}
	var pages []Page
	for _, p := range table.Pages {
		k, err := img.Layer(p.K).Wire.decode()
		v, err2 := img.Layer(p.V).Wire.decode()
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		pages = append(pages, Page{Bytes(k), Bytes(v)})
	}
	return pages
}

// TestPattern: every part of a pattern reads the same as the whole, and shifted parts differ.
func TestPattern(t *testing.T) {
	p := Pattern{Seed: 3, Len: 3*patternBlock + 100}
	var whole bytes.Buffer
	if n, err := p.WriteTo(&whole); n != p.Len || err != nil {
		t.Fatal(n, err)
	}
	for _, off := range []int64{0, 1, 4095, 4096, 4097, 8000, 3 * 4096, p.Len - 1} {
		for _, size := range []int{1, 16, 4096, 5000, 9000} {
			got := make([]byte, size)
			n, err := p.ReadAt(got, off)
			want := whole.Bytes()[off:min(off+int64(size), p.Len)]
			if !bytes.Equal(got[:n], want) || (err == io.EOF) != (n < size) {
				t.Errorf("ReadAt(%d, %d): %d bytes, %v", size, off, n, err)
			}
		}
	}
	if bytes.Equal(whole.Bytes()[:100], whole.Bytes()[patternBlock:patternBlock+100]) {
		t.Error("two blocks are equal")
	}
}

// TestLargeInLittleMemory: a file of 1 GB and a tree of 200,000 entries are built without holding them.
func TestLargeInLittleMemory(t *testing.T) {
	img, err := Build(Spec{
		Dir:     t.TempDir(),
		Entries: []Entry{File("big", "0644", Pattern{Len: 1 << 30})},
		Seq:     Folders(200, 1000, Numbered(100)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if wire := img.Layer(img.Digest("world/fs/big")).Wire; wire.path == "" || wire.Size > 1<<27 {
		t.Errorf("1 GB file: stored in %q, %d bytes", wire.path, wire.Size)
	}
	if n := len(img.Layers); n != 1+8+1+100 {
		t.Errorf("%d layers, want 110", n)
	}
	img.digests = nil
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 200<<20 {
		t.Errorf("%d MB of heap in use", m.HeapAlloc>>20)
	}
}

// TestHostile: what a Spec and an Image are told to say is said.
func TestHostile(t *testing.T) {
	minus := int64(-1)
	img, err := Build(Spec{Entries: []Entry{
		{Path: "../x", Mode: "0644", Kind: "file", Content: Text("a"), Size: &minus},
		{Raw: `{"path":"raw","BLOB":1}`},
	}, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := img.Layer(img.Digest("world.fs")).Wire.decode()
	want := `{"kind":"fs.tree.v1","entries":[{"path":"../x","mode":"0644","size":-1,"kind":"file","blob":"` +
		digestOf([]byte("a")) + `"},{"path":"raw","BLOB":1}]}`
	if err != nil || string(tree) != want {
		t.Errorf("tree\n%s, want\n%s (%v)", tree, want, err)
	}
	if !bytes.Equal(img.Signature, Sign(img.Manifest, "k")) ||
		bytes.Equal(img.Signature, Sign(img.Manifest, "")) {
		t.Error("the key was not used")
	}
	d := digestOf([]byte("a"))
	l := img.Layer(d)
	l.SetWire([]byte("not zstd"))
	l.Size = 99
	if m := string(img.OCIManifest()); !strings.Contains(m,
		`"size":99,"digest":"`+digestOf([]byte("not zstd"))) {
		t.Errorf("the lie is not in the manifest: %s", m)
	}
	img.Drop(d)
	if strings.Contains(string(img.OCIManifest()), d[7:]) {
		t.Error("a dropped layer is still there")
	}
}

// TestWant: what a Spec makes visible.
func TestWant(t *testing.T) {
	s := Spec{Entries: []Entry{
		File("a/b", "4755", Text("first")), Symlink("l", "a/b"), {Path: "a/b", Content: Text("second")},
	}}
	got, err := s.Want()
	if err != nil {
		t.Fatal(err)
	}
	want := []Want{
		{Path: "a", Kind: "dir", Mode: "0755"},
		{Path: "a/b", Kind: "file", Mode: "0644", Size: 6, SHA256: digestOf([]byte("second"))[7:]},
		{Path: "l", Kind: "symlink", Target: "a/b"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}
