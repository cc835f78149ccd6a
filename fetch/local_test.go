package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
	"github.com/pfmount/pfmount/sign"
)

// readAll reads every blob of the image's index and returns how many there were.
func readAll(t *testing.T, im *Image) int {
	t.Helper()
	open := func(ctx context.Context, d pfimg.Digest) (rc readCloser, err error) {
		var b registrytest.Buffer
		err = im.Blob(ctx, d, -1, &b)
		return readCloser{bytes.NewReader(b.Bytes())}, err
	}
	ix, err := pfimg.Build(context.Background(), im.Manifest(), openerOf(open))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for d, size := range ix.Blobs() {
		var b registrytest.Buffer
		if err := im.Blob(context.Background(), d, size, &b); err != nil {
			t.Errorf("blob %s: %v", d, err)
			continue
		}
		if sha256.Sum256(b.Bytes()) != d || size >= 0 && int64(b.Len()) != size {
			t.Errorf("blob %s: %d bytes that hash otherwise", d, b.Len())
		}
		if wire, _, ok := im.Wire(d); !ok || wire <= 0 {
			t.Errorf("blob %s: Wire gives %d, %v", d, wire, ok)
		}
		n++
	}
	return n
}

func TestFixtures(t *testing.T) {
	dir, err := filepath.Abs(registrytest.Fixtures)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PF_STORE", filepath.Join(dir, "store"))
	cids := map[string]string{}
	for line := range strings.Lines(string(registrytest.Fixture(t, "cids.txt"))) {
		tag, cid, _ := strings.Cut(strings.TrimSpace(line), " ")
		cids[tag] = cid
	}
	key := sign.Policy{Keys: []sign.Key{sign.Key("bike-team-key")}}
	tests := []struct {
		ref, tag string
		policy   sign.Policy
		layers   int
		signer   sign.Signer
	}{
		{"oci-layout:" + dir + "/layout:basic", "basic", sign.Policy{}, 0, sign.SignerDefault},
		{"oci-layout:" + dir + "/layout:fork-a", "fork-a", sign.Policy{}, 0, sign.SignerDefault},
		{"oci-layout:" + dir + "/layout:fork-b", "fork-b", sign.Policy{}, 0, sign.SignerDefault},
		{"oci-layout:" + dir + "/layout:merged", "merged", sign.Policy{}, 0, sign.SignerDefault},
		{"oci-layout:" + dir + "/layout:keyed", "keyed", key, 0, sign.SignerGiven},
		{"oci-layout:" + dir + "/layout:minimal", "minimal", sign.Policy{}, 0, sign.SignerDefault},
		{"oci-layout:" + dir + "/layout:nothing", "nothing", sign.Policy{}, 0, sign.SignerDefault},
		{"oci-layout:" + dir + "/layout:pages", "pages", sign.Policy{}, 0, sign.SignerDefault},
		{"oci-layout:" + dir + "/layout:many", "many", sign.Policy{}, 1509, sign.SignerDefault},
		{"oci-layout:" + dir + "/layout@sha256:8370c39caba21924b7df2805f612bda7d220985524d5fb60c737fbd68ecd82a4", "minimal", sign.Policy{}, 0, sign.SignerDefault},
		{"file://" + dir + "/file-registry", "fork-b", sign.Policy{}, -1, sign.SignerDefault},
		{"store:" + cids["minimal"], "minimal", sign.Policy{}, -1, sign.SignerNone},
		{"store:" + cids["pages"], "pages", sign.Policy{}, -1, sign.SignerNone},
	}
	for _, tt := range tests {
		t.Run(tt.ref[strings.LastIndexAny(tt.ref, "/:")+1:], func(t *testing.T) {
			o := testOptions()
			o.Policy = tt.policy
			im := mustOpen(t, registrytest.Ref(t, tt.ref), o)
			if got := pfimg.Digest(im.Manifest().ID).String(); got != cids[tt.tag] {
				t.Errorf("id: got %s, want %s", got, cids[tt.tag])
			}
			if im.Manifest().Signer != tt.signer {
				t.Errorf("signer: got %s, want %s", im.Manifest().Signer, tt.signer)
			}
			if tt.layers > 0 && im.Facts().Layers != tt.layers ||
				tt.layers < 0 && (im.Facts().Layers != 0 || im.Digest() != "") {
				t.Errorf("layers: got %d, digest %q, want %d", im.Facts().Layers, im.Digest(), tt.layers)
			}
			if warned := len(im.Warnings()) > 0; warned != (tt.signer == sign.SignerDefault) {
				t.Errorf("warnings: got %q", im.Warnings())
			}
			if n := readAll(t, im); n < 5 {
				t.Errorf("only %d blobs", n)
			}
			if got := im.Fetched(); got.Requests == 0 || got.Bytes == 0 {
				t.Errorf("traffic: got %+v", got)
			}
		})
	}
}

// copyTree returns a folder with links to a fixture's files, each of which a test may replace. Of
// the layout it takes what the manifests of two tags need.
func copyTree(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	from, err := filepath.Abs(filepath.Join(registrytest.Fixtures, name))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	if name == "layout" {
		files = layoutFiles(t)
	} else if err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path[len(from):])
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		to := filepath.Join(dir, f)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700),
			os.Symlink(filepath.Join(from, f), to)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func layoutFiles(t *testing.T) []string {
	files := []string{"index.json", "oci-layout"}
	add := func(d artifact.WireDigest) { files = append(files, "blobs/sha256/"+d.Hex()) }
	for _, tag := range []string{"minimal", "keyed"} {
		l := local.Open(registrytest.Ref(t, "oci-layout:"+registrytest.Fixtures+"/layout:"+tag), "",
			new(artifact.Counters))
		r, err := l.Root(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		d, err := pfimg.ParseDigest(r.Digest)
		if err != nil {
			t.Fatal(err)
		}
		add(artifact.WireDigest(d))
		add(r.OCI.Config.Wire)
		add(r.OCI.Signatures[0].Wire)
	}
	return files
}

// TestLocalRefuses changes a copy of a fixture and asserts what Open then says.
func TestLocalRefuses(t *testing.T) {
	write := func(path, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, path)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(path string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	fifo := func(path string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			remove(path)(t, dir)
			if err := syscall.Mkfifo(filepath.Join(dir, path), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	nothing := func(*testing.T, string) {}
	minimal := "blobs/sha256/8370c39caba21924b7df2805f612bda7d220985524d5fb60c737fbd68ecd82a4"
	const cid = "42a5aded9060d459a290a989c19e46a8ba37a77663c3cfdf43da7c52341cb7dd"
	tests := []struct {
		name, tree, ref string
		change          func(*testing.T, string)
		want            error
		text            string
	}{
		{"several tags, none named", "layout", "oci-layout:DIR", nothing, ref.ErrInvalid, "basic, fork-a"},
		{"no such tag", "layout", "oci-layout:DIR:v9", nothing, artifact.ErrNotFound, "v9"},
		{"no such digest", "layout", "oci-layout:DIR@sha256:" + hexA, nothing, artifact.ErrNotFound, hexA},
		{"no layout", "store", "oci-layout:DIR", nothing, artifact.ErrNotFound, "oci-layout"},
		{"layout of version 2", "layout", "oci-layout:DIR:minimal",
			write("oci-layout", `{"imageLayoutVersion":"2.0.0"}`), pfimg.ErrUnsupported, "2.0.0"},
		{"index is not JSON", "layout", "oci-layout:DIR:minimal", write("index.json", `<html>`),
			pfimg.ErrIntegrity, "index.json"},
		{"index names twice", "layout", "oci-layout:DIR:minimal",
			write("index.json", `{"manifests":[],"manifests":[]}`), pfimg.ErrIntegrity, "duplicate"},
		{"index is empty", "layout", "oci-layout:DIR:minimal",
			write("index.json", `{"manifests":[]}`), artifact.ErrNotFound, "no image"},
		{"index in index", "layout", "oci-layout:DIR",
			write("index.json", `{"manifests":[{"mediaType":"`+artifact.MediaTypeIndex+`","digest":"sha256:`+hexA+`","size":2}]}`), pfimg.ErrUnsupported, "index"},
		{"negative size", "layout", "oci-layout:DIR",
			write("index.json", `{"manifests":[{"digest":"sha256:`+hexA+`","size":-2}]}`),
			pfimg.ErrIntegrity, "-2"},
		{"manifest is a FIFO", "layout", "oci-layout:DIR:minimal", fifo(minimal),
			pfimg.ErrIntegrity, "regular"},
		{"manifest is missing", "layout", "oci-layout:DIR:minimal", remove(minimal),
			artifact.ErrMissing, "8370c39c"},
		{"manifest of another size", "layout", "oci-layout:DIR:minimal", write(minimal, "{}"),
			pfimg.ErrIntegrity, "2 bytes"},
		{"index.json is a FIFO", "layout", "oci-layout:DIR:minimal", fifo("index.json"),
			pfimg.ErrIntegrity, "regular"},
		{"wrong key", "layout", "oci-layout:DIR:keyed", nothing, sign.ErrSignature, ""},
		{"folder without manifest", "file-registry", "file://DIR", remove("manifest.json"),
			artifact.ErrNotFound, "manifest.json"},
		{"folder without signature", "file-registry", "file://DIR", remove("manifest.json.sig"),
			sign.ErrSignature, "no signature"},
		{"folder with another manifest", "file-registry", "file://DIR",
			write("manifest.json", "{}"), sign.ErrSignature, ""},
		{"no such image in the store", "store", "store:" + hexA, nothing, artifact.ErrNotFound, hexA},
		{"store with another manifest", "store", "store:" + cid, write("images/"+cid+".json", "{}"),
			pfimg.ErrIntegrity, "hashes to"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyTree(t, tt.tree)
			t.Setenv("PF_STORE", dir)
			tt.change(t, dir)
			r := registrytest.Ref(t, strings.ReplaceAll(tt.ref, "DIR", dir))
			start := time.Now()
			im, err := Open(context.Background(), r, testOptions())
			if err == nil {
				_ = im.Close()
			}
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v with %q", err, tt.want, tt.text)
			}
			if time.Since(start) > time.Minute {
				t.Errorf("took %s", time.Since(start))
			}
		})
	}
}

func TestInsecureNeedsNoSignature(t *testing.T) {
	dir := copyTree(t, "file-registry")
	if err := os.Remove(filepath.Join(dir, "manifest.json.sig")); err != nil {
		t.Fatal(err)
	}
	o := testOptions()
	o.Policy.Insecure = true
	im := mustOpen(t, registrytest.Ref(t, "file://"+dir), o)
	if w := strings.Join(im.Warnings(), " "); !strings.Contains(w, "not checked") {
		t.Errorf("warnings: got %q", w)
	}
}

// TestLocalBlobs changes one blob of a folder.
func TestLocalBlobs(t *testing.T) {
	dir := copyTree(t, "file-registry")
	im := mustOpen(t, registrytest.Ref(t, "file://"+dir), testOptions())
	d := im.Manifest().TopLevel()[0].Digest
	path := filepath.Join(dir, d.StoredPath())
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		wire []byte // nil: no file
		want error
		text string
	}{
		{"as it is", good, nil, ""},
		{"trailing byte", append(bytes.Clone(good), 0), pfimg.ErrIntegrity, d.Hex()},
		{"cut", good[:len(good)-1], pfimg.ErrIntegrity, "ends early"},
		{"empty", []byte{}, pfimg.ErrIntegrity, "nothing is stored"},
		{"not zstd", []byte("hello, this is no zstd"), pfimg.ErrIntegrity, "not zstd"},
		{"other content", registrytest.Compress([]byte("other")), pfimg.ErrIntegrity, "hashes to"},
		{"missing", nil, artifact.ErrMissing, d.Hex()},
	}
	for _, tt := range tests {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if tt.wire != nil {
			if err := os.WriteFile(path, tt.wire, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var b registrytest.Buffer
		err := im.Blob(context.Background(), d, -1, &b)
		if !errors.Is(err, tt.want) || tt.want != nil &&
			(!strings.Contains(err.Error(), tt.text) || !errors.Is(err, pfimg.ErrIntegrity)) {
			t.Errorf("%s: got %v, want %v with %q", tt.name, err, tt.want, tt.text)
		}
		if _, _, ok := im.Wire(d); ok != (tt.wire != nil) {
			t.Errorf("%s: Wire says %v", tt.name, ok)
		}
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

func openerOf(open func(context.Context, pfimg.Digest) (readCloser, error)) pfimg.Opener {
	return func(ctx context.Context, d pfimg.Digest) (io.ReadCloser, error) { return open(ctx, d) }
}
