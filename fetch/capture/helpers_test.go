package capture

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/sign"
)

// moment is when the captures of these tests were made.
var moment = time.Date(2026, 5, 5, 14, 11, 0, 120_000_000, time.UTC)

// captured is an image that a capture wrote.
type captured struct {
	t      *testing.T
	dir    string
	log    string
	report Report
	m      *pfimg.Manifest
}

// capture captures dir with o, whose clock stands still.
func capture(t *testing.T, dir string, o Options) (captured, error) {
	t.Helper()
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	o.Now = func() time.Time { return moment }
	c := captured{t: t, dir: t.TempDir()}
	var err error
	c.report, err = Capture(context.Background(), dir, c.dir, o)
	c.log = log.String()
	raw, rerr := os.ReadFile(filepath.Join(c.dir, "manifest.json"))
	if (err == nil) != (rerr == nil) {
		t.Fatalf("capture: %v; its manifest: %v", err, rerr)
	}
	if err != nil {
		return c, err
	}
	for _, e := range must(os.ReadDir(c.dir))(t) {
		if e.Name() != "blobs" && e.Name() != "manifest.json" {
			t.Errorf("left in the image: %s", e.Name())
		}
	}
	if c.m, err = pfimg.Parse(sign.Unverified(raw, nil, "a test")); err != nil {
		t.Fatal(err)
	}
	if c.m.ID != c.report.CID {
		t.Errorf("the report's id is %s, the manifest's %s", c.report.CID, c.m.ID)
	}
	return c, nil
}

// good is capture that must succeed, to an image that must build.
func good(t *testing.T, dir string, o Options) captured {
	t.Helper()
	c, err := capture(t, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	open := func(_ context.Context, d pfimg.Digest) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(c.blob(d))), nil
	}
	x, err := pfimg.Build(context.Background(), c.m, open)
	if err != nil {
		t.Fatal(err)
	}
	for d, size := range x.Blobs() {
		if got := c.blob(d); size >= 0 && int64(len(got)) != size {
			t.Errorf("blob %s has %d bytes, the tree says %d", d, len(got), size)
		}
	}
	return c
}

// bad is capture that must fail with a text.
func bad(t *testing.T, dir string, o Options, want ...string) {
	t.Helper()
	_, err := capture(t, dir, o)
	if !errors.Is(err, ErrSource) {
		t.Fatalf("got error %v, want one of the source", err)
	}
	for _, s := range want {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not have %q", err, s)
		}
	}
}

// blob decodes a blob and checks its name.
func (c captured) blob(d pfimg.Digest) string {
	c.t.Helper()
	stored, err := os.ReadFile(filepath.Join(c.dir, "blobs", "sha256", d.Hex()[:2], d.Hex()+".zst"))
	if err != nil {
		c.t.Fatal(err)
	}
	dec := must(zstd.NewReader(nil))(c.t)
	defer dec.Close()
	out := must(dec.DecodeAll(stored, nil))(c.t)
	if sha256.Sum256(out) != d {
		c.t.Fatalf("blob %s has other bytes", d)
	}
	return string(out)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// put writes files into a new folder: name and content in turn; a name that ends in / is a folder,
// a content that begins with -> a symlink.
func put(t *testing.T, namesAndContents ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(namesAndContents); i += 2 {
		name, content := namesAndContents[i], namesAndContents[i+1]
		path := dir + "/" + name
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(to, path)
		} else if !strings.HasSuffix(name, "/") {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(h[:])
}
