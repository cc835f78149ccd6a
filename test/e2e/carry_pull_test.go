package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// sums lists the files below dir with their hashes; those that a test is not about are left out by skip.
func sums(t *testing.T, dir string, skip func(path string) bool) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || skip != nil && skip(name) {
			return err
		}
		b, err := os.ReadFile(path)
		sum := sha256.Sum256(b)
		all[name] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sameFiles(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, sum := range want {
		if got[name] != sum {
			t.Errorf("%s: %q, want %s", name, got[name], sum)
		}
	}
	for name := range got {
		if want[name] == "" {
			t.Errorf("%s should not be there", name)
		}
	}
}

// TestPullEveryDest pulls into each kind of place: the files are those of the reference tool, byte
// for byte, and a second pull fetches no blob.
func TestPullEveryDest(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		again := func(args ...string) {
			t.Helper()
			e.Registry().Reset()
			if got := carry(t, e, args...); got.Copied != 0 {
				t.Errorf("a second pull copies: %+v", got)
			}
			if n := len(e.Registry().Gets(faultreg.Blob)); n > 4 { // config, signature, tree, page table
				t.Errorf("a second pull fetches %d blobs", n)
			}
		}
		ref := e.Push(harness.Fixture(t, "fork-b"))
		dir := e.Path("home/folder")
		carry(t, e, "pull", ref, "file://"+dir)
		sameFiles(t, sums(t, dir, nil), sums(t, harness.FixtureDir(t, "file-registry"), nil))
		again("pull", ref, "file://"+dir)
		e.Mount("file://"+dir).Compare("world/fs", harness.Want(t, "fork-b"))

		layout := e.Path("home/layout")
		got := carry(t, e, "pull", ref, "oci-layout:"+layout+":b")
		if want := harness.Fixture(t, "fork-b").ManifestDigest(); got.ManifestDigest != want {
			t.Errorf("layout: manifest %s, want %s", got.ManifestDigest, want)
		}
		again("pull", ref, "oci-layout:"+layout+":b")
		carry(t, e, "pull", e.Push(harness.Fixture(t, "basic")), "oci-layout:"+layout+":basic")
		e.Mount("oci-layout:"+layout+":b").Compare("world/fs", harness.Want(t, "fork-b"))
		e.Mount("oci-layout:"+layout+":basic").Compare("world/fs", harness.Want(t, "basic"))

		store := e.Path("home/store")
		manifests := func(path string) bool {
			return strings.Contains(path, harness.Fixture(t, "pages").CID()+".zst") ||
				strings.Contains(path, harness.Fixture(t, "minimal").CID()+".zst")
		}
		skip := func(path string) bool { return manifests(path) }
		for _, tag := range []string{"pages", "minimal"} {
			ref := e.Push(harness.Fixture(t, tag))
			if got := carry(t, e, "pull", ref, "store:", "--store",
				store); got.Destination != "store:"+harness.Fixture(t, tag).CID() {
				t.Errorf("store: %+v", got)
			}
			again("pull", ref, "store:", "--store", store)
		}
		want := sums(t, harness.FixtureDir(t, "store"), skip)
		got2 := sums(t, store, skip)
		for name, sum := range got2 {
			if want[name] != sum {
				t.Errorf("store: %s: %s, want %q", name, sum, want[name])
			}
		}
		e.Set("PF_STORE", store)
		e.Mount("store:"+harness.Fixture(t, "pages").CID()).Compare("world/fs", harness.Want(t, "pages"))
	})
}

// TestPullGoesOn kills and interrupts pulls; what is there under its final name is whole, and the
// next pull fetches only the rest.
func TestPullGoesOn(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			img := harness.Fixture(t, "many")
			ref := e.Push(img)
			dir := e.Path("home/folder")
			hold := faultreg.NewHold()
			rule := e.Registry().On(faultreg.Match{Kind: faultreg.Blob, Method: http.MethodGet,
				From: 600}, hold.After(20))
			p := e.Start("pull", ref, "file://"+dir)
			harness.Eventually(t, time.Minute, "8 blobs at once", func() bool { return hold.Waiting() >= 8 })
			p.Signal(sig)
			r := p.Wait(time.Minute)
			if sig == syscall.SIGINT {
				r.Want(t, 130, "goes on")
			}
			hold.Release()
			rule.Off()
			if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err == nil {
				t.Error("a manifest is there already")
			}
			e.Run("exists", "file://"+dir).Want(t, 3)
			got := carry(t, e, "pull", ref, "file://"+dir)
			if got.Skipped < 300 || got.Copied < 100 {
				t.Errorf("the second pull: %+v", got)
			}
			left, err := filepath.Glob(filepath.Join(dir, ".*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left over: %q, %v", left, err)
			}
			e.Run("verify", "file://"+dir).Want(t, 0)
		})
	}
}

// TestPullBadDests has places that are taken, or no folders.
func TestPullBadDests(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	basic, minimal := e.Push(harness.Fixture(t, "basic")), e.Push(harness.Fixture(t, "minimal"))
	carry(t, e, "pull", minimal, "file://"+e.Path("home/f"))
	carry(t, e, "pull", minimal, "oci-layout:"+e.Path("home/l"))
	carry(t, e, "pull", minimal, "oci-layout:"+e.Path("home/lt")+":v1")
	e.WriteFile("home/plain", nil, 0o600)
	for _, tt := range []struct {
		dest string
		code int
		says string
	}{
		{"file://" + e.Path("home/f"), 1, "another image"},
		{"oci-layout:" + e.Path("home/l"), 1, "another image"},
		{"oci-layout:" + e.Path("home/lt") + ":v1", 1, "another image"},
		{"store:" + strings.Repeat("b", 64), 1, "another one"},
		{e.Registry().Ref("a/b", "c"), 1, "registry"},
		{"file:///proc/pfmount", 7, ""},
		{"file://" + e.Path("home/plain"), 7, ""},
	} {
		e.Run("pull", basic, tt.dest).Want(t, tt.code, tt.says)
	}
	for _, f := range []string{"f", "l"} {
		kind := map[string]string{"f": "file://", "l": "oci-layout:"}[f]
		e.Run("verify", kind+e.Path("home/"+f)).Want(t, 0)
	}
	carry(t, e, "pull", basic, "oci-layout:"+e.Path("home/lt")+":v2")
	e.Run("verify", "oci-layout:"+e.Path("home/lt")+":v1").Want(t, 0)
	e.Run("verify", "oci-layout:"+e.Path("home/lt")+":v2").Want(t, 0)
}

// TestPullRepairs has blobs in the destination that are not right: they are fetched again, the others stay.
func TestPullRepairs(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Fixture(t, "basic")
	ref := e.Push(img)
	dir := e.Path("home/f")
	carry(t, e, "pull", ref, "file://"+dir)
	d := strings.TrimPrefix(img.Digest("model/base"), "sha256:")
	if err := os.Truncate(filepath.Join(dir, "blobs", "sha256", d[:2], d+".zst"), 3); err != nil {
		t.Fatal(err)
	}
	if got := carry(t, e, "pull", ref, "file://"+dir); got.Copied != 1 {
		t.Errorf("%+v, want one blob copied", got)
	}
	e.Run("verify", "file://"+dir).Want(t, 0)
}

// TestPullSignature checks the signatures that a pull leaves in a folder.
func TestPullSignature(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Fixture(t, "keyed")
	ref := e.Push(img)
	bike := e.WriteFile("bike.key", []byte("bike-team-key"), 0o600)
	own := e.WriteFile("own.key", []byte("own"), 0o600)
	e.Run("pull", ref, "file://"+e.Path("home/x")).Want(t, 4, "signature")
	carry(t, e, "pull", ref, "file://"+e.Path("home/a"), "--key-file", bike)
	if got, err := os.ReadFile(e.Path("home/a/manifest.json.sig")); err != nil ||
		string(got) != string(img.Signature) {
		t.Errorf("signature %q (%v), want the image's", got, err)
	}
	e.Set("PF_FILE_REG_SIGN_KEY", "own")
	carry(t, e, "pull", ref, "file://"+e.Path("home/b"), "--key-file", bike)
	e.Run("verify", "file://"+e.Path("home/b"), "--key-file", own, "--require-key").Want(t, 0)
}

// TestCarryInCircles carries an image through every kind of place and back into the registry: the
// blobs stay the same bytes, so the last push uploads none.
func TestCarryInCircles(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref := e.Push(harness.Fixture(t, "pages"))
	store := "store:" + harness.Fixture(t, "pages").CID()
	e.Set("PF_STORE", e.Path("home/s"))
	carry(t, e, "pull", ref, "store:")
	carry(t, e, "pull", store, "file://"+e.Path("home/f"))
	carry(t, e, "pull", "file://"+e.Path("home/f"), "oci-layout:"+e.Path("home/l"))
	if got := carry(t, e, "push", "oci-layout:"+e.Path("home/l"), ref); got.Copied != 0 {
		t.Errorf("%+v, want nothing copied", got)
	}
	e.Mount(ref).Compare("world/fs", harness.Want(t, "pages"))
}
