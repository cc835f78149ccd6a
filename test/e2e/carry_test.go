package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// carried is the JSON of push and pull.
type carried struct {
	Schema         int
	Destination    string
	ManifestDigest string `json:"manifest_digest"`
	CID            string
	Blobs          int
	Copied         int
	Skipped        int
	Bytes          int64
}

func carry(t *testing.T, e *harness.Env, args ...string) carried {
	t.Helper()
	r := e.Run(append(args, "--json")...).Want(t, 0)
	var c carried
	if err := json.Unmarshal([]byte(r.Stdout), &c); err != nil || c.Schema != 1 ||
		c.Blobs != c.Copied+c.Skipped {
		t.Fatalf("%v: %v", err, r)
	}
	return c
}

// specWant is what a Spec's world/fs must show.
func specWant(t *testing.T, s *imgbuild.Spec) []imgbuild.Want {
	t.Helper()
	want, err := s.Want()
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// TestPushEverySource pushes from each kind of place, mounts what arrived and compares.
func TestPushEverySource(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, tag string
		source    func(e *harness.Env, img *imgbuild.Image) []string
	}{
		{"layout", "basic", func(e *harness.Env, _ *imgbuild.Image) []string {
			return []string{"oci-layout:" + e.CopyFixture("layout") + ":basic"}
		}},
		{"keyed layout", "keyed", func(e *harness.Env, _ *imgbuild.Image) []string {
			e.Set("PF_OCI_REG_SIGN_KEY", "bike-team-key")
			return []string{"oci-layout:" + e.CopyFixture("layout") + ":keyed"}
		}},
		{"folder", "fork-b", func(e *harness.Env, _ *imgbuild.Image) []string {
			return []string{"file://" + e.CopyFixture("file-registry")}
		}},
		{"store by option", "pages", func(e *harness.Env, img *imgbuild.Image) []string {
			return []string{"--store", e.CopyFixture("store"), "store:" + img.CID()}
		}},
		{"store by variable", "minimal", func(e *harness.Env, img *imgbuild.Image) []string {
			e.Set("PF_STORE", e.CopyFixture("store"))
			return []string{"store:" + img.CID()}
		}},
		{"empty tree", "nothing", func(e *harness.Env, _ *imgbuild.Image) []string {
			return []string{"oci-layout:" + e.CopyFixture("layout") + ":nothing"}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			harness.Once(t, func(t *testing.T, e *harness.Env) {
				img := harness.Fixture(t, tt.tag)
				dst := e.Registry().Ref("team/new", "v1")
				got := carry(t, e, append(append([]string{"push"}, tt.source(e, img)...), dst)...)
				if "sha256:"+strings.TrimPrefix(got.CID,
					"sha256:") != "sha256:"+strings.TrimPrefix(img.CID(), "sha256:") || got.Copied == 0 {
					t.Errorf("report: %+v", got)
				}
				m := e.Mount(dst)
				m.Compare("world/fs", harness.Want(t, tt.tag))
				compareRest(t, m, img, true)
				compareBlobs(t, m, img)
			})
		})
	}
}

// TestPushOverTheReference pushes what the reference tool pushed before: nothing is uploaded, and
// the manifest is the same to the byte.
func TestPushOverTheReference(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	srv := e.Registry()
	for _, tag := range []string{"basic", "fork-b", "pages"} {
		img := harness.Fixture(t, tag)
		if err := srv.Push(t.Context(), img, "team/app", tag); err != nil {
			t.Fatal(err)
		}
		source := []string{"oci-layout:" + harness.FixtureDir(t, "layout") + ":" + tag}
		switch tag {
		case "fork-b":
			source = []string{"file://" + harness.FixtureDir(t, "file-registry")}
		case "pages":
			source = []string{"--store", harness.FixtureDir(t, "store"), "store:" + img.CID()}
		}
		srv.Reset()
		got := carry(t, e, append(append([]string{"push"}, source...), srv.Ref("team/app", tag))...)
		if got.Copied != 0 || got.Skipped != got.Blobs || got.Bytes != 0 {
			t.Errorf("%s: %+v, want nothing copied", tag, got)
		}
		if n := srv.Count(faultreg.Match{Kind: faultreg.Upload}); n != 0 {
			t.Errorf("%s: %d requests of uploads, want none", tag, n)
		}
		if tag == "basic" && got.ManifestDigest != img.ManifestDigest() {
			t.Errorf("%s: manifest %s, want the reference's %s", tag, got.ManifestDigest,
				img.ManifestDigest())
		}
		e.Run("verify", srv.Ref("team/app", tag)).Want(t, 0)
	}
}

// TestPushDecodedSizes looks at the annotations: on every layer without a signed size, and on no other.
func TestPushDecodedSizes(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Fixture(t, "minimal")
	dst := e.Registry().Ref("team/new", "v1")
	carry(t, e, "push", "--store", harness.FixtureDir(t, "store"), "store:"+img.CID(), dst)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		e.Registry().URL()+"/v2/team/new/manifests/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc struct {
		Layers []struct{ Annotations map[string]string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	m := e.Mount(dst)
	sizes := map[string]string{}
	for _, top := range []string{"model/base", "model/diff.json", "cache/manifest.json",
		"world/env.json", "world/procs.json", "effects/ledger.jsonl", "trace/messages.jsonl"} {
		data := m.Read(top)
		sizes[harness.SHA256(data)] = fmt.Sprint(len(data))
	}
	tree := strings.TrimPrefix(img.Digest("world.fs"), "sha256:")
	annotated := 0
	for i, l := range doc.Layers {
		name := strings.TrimSuffix(filepath.Base(l.Annotations["org.processfork.path"]), ".zst")
		size, has := l.Annotations["dev.pfmount.decoded-size"]
		if want, top := sizes[name]; has && name != tree && (!top || size != want) ||
			!has && (top || name == tree) {
			t.Errorf("layer %d (%s): annotation %q (%t)", i, name, size, has)
		}
		if has {
			annotated++
		}
	}
	if annotated < 7 {
		t.Errorf("%d layers are annotated", annotated)
	}
}

// TestPushTwoNamesOneDigest: in a push, equal files are one blob, checked, asked for and uploaded once.
func TestPushTwoNamesOneDigest(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	var entries []imgbuild.Entry
	for i := range 1000 {
		entries = append(entries, imgbuild.File(fmt.Sprintf("empty/%04d", i),
			fmt.Sprintf("0%o", 0o600+i%64), imgbuild.Text("")))
	}
	for i := range 50 {
		entries = append(entries, imgbuild.File(fmt.Sprintf("same/%02d", i),
			fmt.Sprintf("0%o", 0o644+i%2), imgbuild.Text("one text\n")))
	}
	spec := imgbuild.Spec{Entries: entries}
	img := harness.Build(t, spec)
	dir := e.MakeDir("folder")
	if err := img.WriteFolder(dir); err != nil {
		t.Fatal(err)
	}
	dst := e.Registry().Ref("team/new", "v1")
	got := carry(t, e, "push", "file://"+dir, dst)
	if got.Copied > 12 {
		t.Errorf("%d blobs copied, want each digest once", got.Copied)
	}
	puts := e.Registry().Count(faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut})
	heads := e.Registry().Count(faultreg.Match{Kind: faultreg.Blob, Method: http.MethodHead})
	if puts != got.Copied || heads != got.Blobs {
		t.Errorf("%d PUT and %d HEAD for %d copied of %d blobs", puts, heads, got.Copied, got.Blobs)
	}
	e.Mount(dst).Compare("world/fs", specWant(t, &spec))
}

// TestPushTooLarge: in a push, what no registry takes is refused before the first upload, with the number of
// blobs and what to do.
func TestPushTooLarge(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	var entries []imgbuild.Entry
	for i := range 16000 {
		entries = append(entries, imgbuild.File(fmt.Sprintf("d%03d/f%05d", i/100, i), "0644",
			imgbuild.Text(fmt.Sprintf("file %d\n", i))))
	}
	spec := imgbuild.Spec{Entries: entries}
	img := harness.Build(t, spec)
	dir := e.MakeDir("folder")
	if err := img.WriteFolder(dir); err != nil {
		t.Fatal(err)
	}
	r := e.Run("push", "file://"+dir, e.Registry().Ref("team/new", "v1"))
	r.Want(t, 1, "16008 blobs", "4.0 mib", "oci-layout:")
	if n := e.Registry().Count(faultreg.Match{}); n != 0 {
		t.Errorf("%d requests, want none", n)
	}
	r = e.Run("pull", "file://"+dir, "oci-layout:"+e.Path("big")).Want(t, 0)
	e.Mount(strings.TrimSpace(r.Stdout)).Compare("world/fs", specWant(t, &spec))
}

// TestPushSigning checks the signatures of what arrived.
func TestPushSigning(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	key := e.WriteFile("team.key", []byte("team-key\n"), 0o600)
	layout := "oci-layout:" + harness.FixtureDir(t, "layout")
	store := "store:" + harness.Fixture(t, "minimal").CID()
	e.Set("PF_STORE", harness.FixtureDir(t, "store"))
	for i, tt := range []struct {
		source, oci, file string   // variables; "": not set
		args              []string // of push
		says              string   // on stderr of push
		verify            []string // that pass
		refuse            []string // that do not
	}{
		{layout + ":basic", "", "", nil, "public default key", nil, []string{"--require-key"}},
		{layout + ":basic", "", "", []string{"--key-file", key}, "", []string{"--key-file", key}, []string{}},
		{layout + ":basic", "team-key", "", nil, "", []string{"--key-file", key, "--require-key"}, nil},
		{store, "", "", nil, "public default key", nil, []string{"--require-key"}},
		{store, "team-key", "", nil, "", []string{"--key-file", key}, nil},
		{"file://" + harness.FixtureDir(t, "file-registry"), "team-key", "", nil, "",
			[]string{"--key-file", key}, nil},
	} {
		dst := e.Registry().Ref("team/new", fmt.Sprintf("v%d", i))
		set := func(name, value string) {
			if value != "" {
				e.Set(name, value)
			}
		}
		set("PF_OCI_REG_SIGN_KEY", tt.oci)
		set("PF_FILE_REG_SIGN_KEY", tt.file)
		e.Run(append([]string{"push", tt.source, dst}, tt.args...)...).Want(t, 0, tt.says)
		e.Unset("PF_OCI_REG_SIGN_KEY")
		e.Unset("PF_FILE_REG_SIGN_KEY")
		e.Run(append([]string{"verify", dst}, tt.verify...)...).Want(t, 0)
		if tt.refuse != nil {
			if r := e.Run(append([]string{"verify", dst}, tt.refuse...)...); r.Code == 0 {
				t.Errorf("%d: verify %q passes", i, tt.refuse)
			}
		}
	}
	// A private signature is copied without a key to make it anew: only its own key verifies it.
	dst := e.Registry().Ref("team/new", "keyed")
	bike := e.WriteFile("bike.key", []byte("bike-team-key"), 0o600)
	e.Run("push", layout+":keyed", dst).Want(t, 4, "signature")
	e.Run("push", layout+":keyed", dst, "--key-file", bike).Want(t, 0)
	e.Run("verify", dst, "--key-file", bike, "--require-key").Want(t, 0)
	e.Run("push", layout+":keyed", dst, "--key-file", key).Want(t, 4, "signature")
}

// TestExists is the command's contract.
func TestExists(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref := e.Push(harness.Fixture(t, "minimal"))
	pinned := e.Registry().Ref("team/app", "none") + "@" + harness.Fixture(t, "minimal").ManifestDigest()
	for _, tt := range []struct {
		ref  string
		code int
	}{
		{ref, 0}, {pinned, 0},
		{e.Registry().Ref("team/app", "none"), 3}, {e.Registry().Ref("team/none", "v1"), 3},
		{"oci-layout:" + harness.FixtureDir(t, "layout") + ":basic", 0},
		{"oci-layout:" + harness.FixtureDir(t, "layout") + ":nix", 3},
		{"file://" + harness.FixtureDir(t, "file-registry"), 0}, {"file:///nowhere", 3},
		{"127.0.0.1:1/a/b:c", 5}, {"a b", 1},
	} {
		if r := e.Run("exists", tt.ref); r.Code != tt.code ||
			(r.Stdout == "") != (tt.code != 0 && tt.code != 3) {
			t.Errorf("want %d: %v", tt.code, r)
		}
		if r := e.Run("exists", "-q", tt.ref); r.Code != tt.code || r.Stdout != "" {
			t.Errorf("want %d and no output: %v", tt.code, r)
		}
	}
	for _, status := range []int{401, 403, 500} {
		rule := e.Registry().On(faultreg.Match{}, faultreg.Answer(status, ""))
		e.Run("exists", ref).Want(t, 5)
		rule.Off()
	}
	if n := e.Registry().Count(faultreg.Match{Method: http.MethodGet, Kind: faultreg.Blob}); n != 0 {
		t.Errorf("%d blobs were fetched", n)
	}
}

// TestPushCaptured captures a directory on the way: what is mounted is what was there.
func TestPushCaptured(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	e.MakeDir("home/p")
	e.MakeDir("home/p/sub")
	e.WriteFile("home/p/sub/a.txt", []byte("hello\n"), 0o640)
	e.WriteFile("home/p/run", []byte("#!/bin/sh\n"), 0o755)
	key := e.WriteFile("team.key", []byte("team"), 0o600)
	dst := e.Registry().Ref("team/new", "v1")
	carry(t, e, "push", "--key-file", key, e.Path("home/p"), dst)
	e.Mount(dst, "--key-file", key, "--require-key").Compare("world/fs", []imgbuild.Want{
		{Path: "sub", Kind: "dir", Mode: "0700"},
		{Path: "sub/a.txt", Kind: "file", Mode: "0640", Size: 6, SHA256: harness.SHA256([]byte("hello\n"))},
		{Path: "run", Kind: "file", Mode: "0755", Size: 10, SHA256: harness.SHA256([]byte("#!/bin/sh\n"))},
	})
	if left, err := filepath.Glob(e.Path("tmp/*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %q, %v", left, err)
	}
	e.Run("push", e.Path("home/none"), dst).Want(t, 1, "no such file")
	e.Run("push", key, dst).Want(t, 1, "no directory")
	e.Run("push", e.Path("home/p"), dst, "--require-key").Want(t, 1, "no key to sign with")
	e.Run("push", "--agent", "x", "file://"+harness.FixtureDir(t, "file-registry"), dst).Want(t, 1,
		"is for a directory")
}

// TestPushInterrupted stops a push by Ctrl-C: it says how to go on, no tag is there, and the next
// push does the rest.
func TestPushInterrupted(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	hold := faultreg.NewHold()
	rule := e.Registry().On(faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut, From: 40},
		hold.Fault())
	dst := e.Registry().Ref("team/new", "v1")
	args := []string{"push", "oci-layout:" + harness.FixtureDir(t, "layout") + ":basic", dst}
	p := e.Start(args...)
	harness.Eventually(t, time.Minute, "8 uploads at once", func() bool { return hold.Waiting() >= 8 })
	p.Signal(syscall.SIGINT)
	p.Wait(time.Minute).Want(t, 130, "goes on")
	rule.Off()
	hold.Release()
	e.Run("exists", dst).Want(t, 3)
	if got := carry(t, e, args...); got.Skipped < 30 || got.Copied == 0 {
		t.Errorf("the second push: %+v", got)
	}
	e.Run("verify", dst).Want(t, 0)
}
