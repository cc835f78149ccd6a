package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// TestPushRefusedByTheRegistry has the registry refuse each step: its words are shown and no tag appears.
func TestPushRefusedByTheRegistry(t *testing.T) {
	t.Parallel()
	const words = `{"errors":[{"code":"TOOMUCH","message":"the quota of team is used up"}]}`
	for _, tt := range []struct {
		name  string
		match faultreg.Match
		fault faultreg.Fault
		says  string
	}{
		{"start of an upload", faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPost,
			From: 20}, faultreg.Answer(403, words, "Content-Type", "application/json"), "quota of team"},
		{"upload", faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut, From: 20},
			faultreg.Answer(413, words, "Content-Type", "application/json"), "quota of team"},
		{"manifest", faultreg.Match{Kind: faultreg.Manifest, Method: http.MethodPut},
			faultreg.Answer(400, words, "Content-Type", "application/json"), "quota of team"},
		{"everything", faultreg.Match{}, faultreg.Answer(401, words, "Content-Type",
			"application/json"), "quota of team"},
		{"upload to another host", faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPost},
			faultreg.Answer(202, "", "Location", "http://127.0.0.9:1/steal?x=secret"), "another host"},
		{"no location", faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPost},
			faultreg.Answer(202, ""), "location"},
		{"down for good", faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut},
			faultreg.Answer(503, "closed for repair"), "closed for repair"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			rule := e.Registry().On(tt.match, tt.fault)
			dst := e.Registry().Ref("team/new", "v1")
			args := []string{"push", "oci-layout:" + harness.FixtureDir(t, "layout") + ":basic", dst}
			r := e.Run(args...).Want(t, 5, tt.says)
			if strings.Contains(r.Stderr, "secret") {
				t.Errorf("a query is shown: %v", r)
			}
			rule.Off()
			e.Run("exists", "-q", dst).Want(t, 3)
			e.Run(args...).Want(t, 0)
			e.Run("verify", dst).Want(t, 0)
		})
	}
}

// TestPushSurvivesFaults has single requests fail in ways that pass: the push ends well, and
// uploads nothing twice.
func TestPushSurvivesFaults(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	srv := e.Registry()
	srv.On(faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPost, From: 3, Count: 2},
		faultreg.Answer(429, "", "Retry-After", "1"))
	srv.On(faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut, From: 5, Count: 2},
		faultreg.Answer(502, ""))
	srv.On(faultreg.Match{Kind: faultreg.Blob, Method: http.MethodHead, From: 7, Count: 1}, faultreg.Drop())
	// The answer to an upload is lost, not the upload.
	srv.On(faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut, From: 5, Count: 1},
		func(_ http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(&nowhere{h: http.Header{}}, r)
			panic(http.ErrAbortHandler)
		})
	srv.On(faultreg.Match{Kind: faultreg.Manifest, Method: http.MethodPut, Count: 1},
		faultreg.Answer(503, ""))
	dst := srv.Ref("team/new", "v1")
	carry(t, e, "push", "oci-layout:"+harness.FixtureDir(t, "layout")+":basic", dst)
	created := map[string]int{}
	for _, x := range srv.Log() {
		if x.Kind == faultreg.Upload && x.Method == http.MethodPut && x.Status == http.StatusCreated {
			created[x.Query[strings.Index(x.Query, "digest="):]]++
		}
	}
	for d, n := range created {
		if n > 1 {
			t.Errorf("%s was uploaded %d times", d, n)
		}
	}
	e.Run("verify", dst).Want(t, 0)
}

// nowhere is a ResponseWriter that drops the answer.
type nowhere struct{ h http.Header }

func (n *nowhere) Header() http.Header         { return n.h }
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n *nowhere) WriteHeader(int)             {}

// TestPushManyAtOnce counts at the registry.
func TestPushManyAtOnce(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	hold := faultreg.NewHold()
	e.Registry().On(faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut}, hold.Fault())
	p := e.Start("push", "oci-layout:"+harness.FixtureDir(t, "layout")+":many",
		e.Registry().Ref("team/new", "v1"))
	harness.Eventually(t, time.Minute, "8 uploads at once", func() bool { return hold.Waiting() >= 8 })
	hold.Release()
	p.Wait(harness.Limit).Want(t, 0, "1510 copied")
	e.Run("verify", e.Registry().Ref("team/new", "v1")).Want(t, 0)
}

// TestPushBadSources has sources that are none, or not whole.
func TestPushBadSources(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Fixture(t, "minimal")
	spoiled := func(name string, spoil func(path string) error) string {
		dir := e.MakeDir(name)
		if err := os.CopyFS(dir, os.DirFS(harness.FixtureDir(t, "store"))); err != nil {
			t.Fatal(err)
		}
		d := strings.TrimPrefix(img.Digest("world/env.json"), "sha256:")
		path := filepath.Join(dir, "blobs", "sha256", d[:2], d+".zst")
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	cut := func(path string) error { return os.Truncate(path, 10) }
	flip := func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)-1] ^= 1
		return os.WriteFile(path, b, 0o644)
	}
	longer := func(path string) error {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write([]byte("tail"))
		return err
	}
	folder := e.MakeDir("unsigned")
	if err := os.CopyFS(folder, os.DirFS(harness.FixtureDir(t, "file-registry"))); err != nil {
		t.Fatal(err)
	}
	sig := filepath.Join(folder, "manifest.json.sig")
	if err := os.Chmod(sig, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sig, harness.Fixture(t, "basic").Signature, 0o644); err != nil {
		t.Fatal(err)
	}
	dst := e.Registry().Ref("team/new", "v1")
	store := "store:" + img.CID()
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--store", spoiled("gone", os.Remove), store}, 4, "missing"},
		{[]string{"--store", spoiled("short", cut), store}, 4, "integrity"},
		{[]string{"--store", spoiled("altered", flip), store}, 4, ""},
		{[]string{"--store", spoiled("longer", longer), store}, 4, ""},
		{[]string{"--store", harness.FixtureDir(t, "store"), "store:" + strings.Repeat("a", 64)}, 5,
			"no image"},
		{[]string{"--store", "/nowhere", store}, 5, "no image"},
		{[]string{"store:xyz"}, 1, "64 hex"},
		{[]string{"oci-layout:" + harness.FixtureDir(t, "layout")}, 1, "name one"},
		{[]string{"oci-layout:" + harness.FixtureDir(t, "layout") + ":nix"}, 5, "tagged"},
		{[]string{"file://" + folder}, 4, "signature"},
		{[]string{"file:///nowhere"}, 5, "no image"},
		{[]string{"ftp://x/y"}, 1, "scheme"},
		{[]string{dst}, 1, "in a registry"},
		{nil, 1, "no image given"},
	} {
		e.Run(append(append([]string{"push"}, tt.args...), dst)...).Want(t, tt.code, tt.says)
	}
	e.Run("push", "oci-layout:"+harness.FixtureDir(t, "layout")+":basic", "oci-layout:/x").Want(t, 1, "pull")
	if n := e.Registry().Count(faultreg.Match{Where: func(x *faultreg.Exchange) bool { return x.Method != http.MethodHead }}); n != 0 {
		t.Errorf("%d requests that write, want none", n)
	}
	e.Run("exists", dst).Want(t, 3)
}
