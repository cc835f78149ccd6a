package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
	"github.com/pfmount/pfmount/sign"
)

func mustDest(t *testing.T, s, store string) ref.Ref {
	t.Helper()
	r, err := ref.ParseDest(s, store)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// files lists everything below dir that is no folder, with its content.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		all[name] = string(readFile(t, path))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestParseDest(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		in, store, want string // "": ref.ErrInvalid
	}{
		{"file:///a/b", "", "file:///a/b"},
		{"oci-layout:" + dir + "/l:v1", "", "oci-layout:" + dir + "/l:v1"},
		{"oci-layout:" + dir, "", "oci-layout:" + dir},
		{"store:" + strings.Repeat("a", 64), dir, "store:" + strings.Repeat("a", 64)},
		{"store:", dir, "store:" + strings.Repeat("0", 64)},
		{"localhost/a", "", ""}, {"", "", ""}, {"/a/b", "", ""}, {"store:xyz", "", ""}, {"file://a", "", ""},
		{"oci-layout:" + dir + "/l@sha256:" + strings.Repeat("a", 64), "", ""},
	} {
		r, err := ref.ParseDest(tt.in, tt.store)
		if tt.want == "" {
			if !errors.Is(err, ref.ErrInvalid) {
				t.Errorf("%q: got %v, %v, want ref.ErrInvalid", tt.in, r, err)
			}
			continue
		}
		if tt.in == "store:" {
			tt.want = "store:" + pfimg.Digest{}.Hex()
		}
		if err != nil || r.String() != tt.want || tt.store != "" && r.Dir() != tt.store {
			t.Errorf("%q: got %v in %q, %v, want %s", tt.in, r, r.Dir(), err, tt.want)
		}
	}
}

// TestPullThereAndBack pulls into each kind of place, and once more from there.
func TestPullThereAndBack(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	layoutRef, folderRef := "oci-layout:"+dir+"/l:v1", "file://"+dir+"/f"
	steps := []struct{ from, to string }{
		{"oci-layout:" + registrytest.Fixtures + "/layout:fork-b", folderRef},
		{folderRef, layoutRef},
		{layoutRef, "store:"},
	}
	for _, s := range steps {
		for again := range 2 {
			c := openCargo(t, s.from)
			r, err := Pull(ctx, c, mustDest(t, s.to, dir+"/s"), PullOptions{})
			if err != nil {
				t.Fatalf("%s to %s: %v", s.from, s.to, err)
			}
			if fresh := again == 0; fresh != (r.Copied > 0) && s.from != folderRef ||
				r.Blobs != c.Index.Stats().Blobs {
				t.Errorf("%s to %s, time %d: %+v", s.from, s.to, again, r)
			}
		}
	}
	if got, want := files(t, dir+"/f"), files(t,
		registrytest.Fixtures+"/file-registry"); !mapsEqual(got, want) {
		t.Errorf("the folder is not the reference tool's: %d files, want %d", len(got), len(want))
	}
	c := openCargo(t, layoutRef)
	for d, size := range c.Index.Blobs() {
		var b registrytest.Buffer
		if err := c.Image.Blob(ctx, d, size, &b); err != nil {
			t.Error(err)
		}
	}
	id := c.Image.Manifest().ID
	raw := readFile(t, filepath.Join(dir, "s", "images", id.Hex()+".json"))
	var b registrytest.Buffer
	if err := newTestDecoder(t, readFile(t, filepath.Join(dir, "s", id.StoredPath())),
		&b); err != nil || !bytes.Equal(b.Bytes(), raw) || !bytes.Equal(raw, c.Image.Manifest().Raw) {
		t.Errorf("the store's manifest: %v", err)
	}
}

func mapsEqual(a, b map[string]string) bool {
	for name, content := range a {
		if other, ok := b[name]; !ok || other != content {
			return false
		}
	}
	return len(a) == len(b)
}

// TestPullKeepsOthers looks at an index that others wrote: their entries and fields stay.
func TestPullKeepsOthers(t *testing.T) {
	dir := t.TempDir()
	index := `{"schemaVersion":2,"x":{"b":[1]},"manifests":[{"mediaType":"m","digest":"sha256:` +
		strings.Repeat("a", 64) +
		`","size":3,"y":"z","annotations":{"org.opencontainers.image.ref.name":"other"}}]}`
	for name, content := range map[string]string{"index.json": index,
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:minimal")
	if _, err := Pull(context.Background(), c, mustDest(t, "oci-layout:"+dir, ""),
		PullOptions{}); !errors.Is(err, local.ErrTaken) {
		t.Errorf("without a tag: %v, want ErrTaken", err)
	}
	if _, err := Pull(context.Background(), c, registrytest.Ref(t, "oci-layout:"+dir+":"+"other"),
		PullOptions{}); !errors.Is(err, local.ErrTaken) {
		t.Errorf("under another's tag: %v, want ErrTaken", err)
	}
	if _, err := Pull(context.Background(), c, registrytest.Ref(t, "oci-layout:"+dir+":"+"mine"),
		PullOptions{}); err != nil {
		t.Fatal(err)
	}
	var got struct {
		X         json.RawMessage
		Manifests []map[string]any
	}
	if err := json.Unmarshal(readFile(t, filepath.Join(dir, "index.json")), &got); err != nil {
		t.Fatal(err)
	}
	if string(got.X) != `{"b":[1]}` || len(got.Manifests) != 2 || got.Manifests[0]["y"] != "z" ||
		got.Manifests[1]["digest"] != c.Image.Digest() {
		t.Errorf("index: %+v", got)
	}
}

func TestPullSigns(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	c := openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:minimal")
	if _, err := Pull(ctx, c, mustDest(t, "file://"+dir+"/f", ""),
		PullOptions{Key: sign.Key("own")}); err != nil {
		t.Fatal(err)
	}
	o := testOptions()
	o.Policy.Keys, o.Policy.Require = []sign.Key{sign.Key("own")}, true
	if _, err := Open(ctx, registrytest.Ref(t, "file://"+dir+"/f"), o); err != nil {
		t.Errorf("signed anew: %v", err)
	}
	// A store's image has no signature: the public one is made, and said to be that.
	s := Cargo{Image: mustOpen(t, registrytest.Ref(t,
		"store:"+c.Image.Manifest().ID.Hex()).InStore(registrytest.Fixtures+"/store"), testOptions()), Index: c.Index}
	r, err := Pull(ctx, s, mustDest(t, "oci-layout:"+dir+"/l", ""), PullOptions{})
	if err != nil || len(r.Warnings) != 1 {
		t.Errorf("from a store: %+v, %v", r, err)
	}
	mustOpen(t, registrytest.Ref(t, "oci-layout:"+dir+"/l"), testOptions())
}

// TestPullFailures has blobs that do not come right: nothing gets its name, nothing is left over,
// and the next pull goes on.
func TestPullFailures(t *testing.T) {
	basic := openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:basic")
	raw, err := basic.ociBytes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	f := registrytest.NewServer(t)
	for d := range basic.Index.Blobs() {
		w := basic.Image.reader.Root().Find(d)[0].Wire
		f.Content["/v2/a/blobs/"+w.String()] = registrytest.Fixture(t, "layout", "blobs", "sha256", w.Hex())
	}
	for _, b := range [][]byte{basic.Image.manifest.Raw, basic.Image.reader.Root().Signature} {
		f.Content["/v2/a/blobs/"+registrytest.DigestOf(b)] = b
	}
	f.Content["/v2/a/manifests/latest"], f.Content["/v2/a/manifests/"+registrytest.DigestOf(raw)] = raw, raw
	bad := basic.Image.reader.Root().Find(basic.Image.manifest.Model.Diff)[0].Wire
	c := openCargo(t, f.Host()+"/a")
	for name, script := range map[string]func(w http.ResponseWriter){
		"wrong bytes": func(w http.ResponseWriter) { _, _ = w.Write(bytes.Repeat([]byte("x"), 121)) },
		"gone":        func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
		"denied":      func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			dst := mustDest(t, "file://"+dir, "")
			f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, bad.String()) {
					script(w)
					return true
				}
				return false
			})
			if _, err := Pull(context.Background(), c, dst, PullOptions{}); err == nil {
				t.Fatal("no error")
			}
			f.Answer(nil)
			for path, content := range files(t, dir) {
				var b registrytest.Buffer
				if err := newTestDecoder(t, []byte(content), &b); err != nil ||
					!strings.Contains(path, strings.TrimPrefix(registrytest.DigestOf(b.Bytes()), "sha256:")) {
					t.Errorf("%s: %v", path, err)
				}
			}
			r, err := Pull(context.Background(), c, dst, PullOptions{})
			if err != nil || r.Copied == 0 {
				t.Errorf("the second pull: %+v, %v", r, err)
			}
			left, err := os.ReadDir(dir)
			names := []string{}
			for _, e := range left {
				names = append(names, e.Name())
			}
			if want := []string{"blobs", "manifest.json", "manifest.json.sig"}; err != nil ||
				!slices.Equal(names, want) {
				t.Errorf("left %q (%v), want %q", names, err, want)
			}
		})
	}
}
