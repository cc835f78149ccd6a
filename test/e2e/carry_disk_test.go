package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/harness"
)

// wholeBlobs fails the test for every file below dir whose name is a digest and whose bytes are not
// that blob's, and for every file of another name that is not in allowed.
func wholeBlobs(t *testing.T, dir string, allowed ...string) (blobs int) {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, decoded := strings.CutSuffix(d.Name(), ".zst")
		if len(name) != 64 {
			for _, a := range allowed {
				if a == d.Name() {
					return nil
				}
			}
			t.Errorf("%s should not be there", path)
			return nil
		}
		if blobs++; decoded {
			if b, err = dec.DecodeAll(b, nil); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		if got := strings.TrimPrefix(harness.SHA256(b), "sha256:"); got != name {
			t.Errorf("%s holds %s", path, got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return blobs
}

// TestPullIntoFullDisk pulls into a disk that is too small: exit code 7, nothing half under a final
// name, no image. When there is room the pull goes on.
func TestPullIntoFullDisk(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		img := harness.Fixture(t, "basic")
		ref := e.Push(img)
		disk := e.Tmpfs("full", 200<<10)
		e.Set("PF_STORE", disk+"/store")
		for dest, folder := range map[string]string{
			"file://" + disk + "/f": disk + "/f", "oci-layout:" + disk + "/l": disk + "/l",
			"store:": disk + "/store",
		} {
			if err := unix.Mount("", disk, "", unix.MS_REMOUNT, "size=200k"); err != nil {
				t.Fatal(err)
			}
			e.Run("pull", "--max-connections=4", ref, dest).Want(t, 7, "no space") // with more, none may be whole before all is full
			if n := wholeBlobs(t, folder); n == 0 {
				t.Errorf("%s: no blob stayed", dest)
			}
			there := dest
			if dest == "store:" {
				there += img.CID()
			}
			e.Run("exists", there).Want(t, 3)
			if err := unix.Mount("", disk, "", unix.MS_REMOUNT, "size=8m"); err != nil {
				t.Fatal(err)
			}
			if got := carry(t, e, "pull", ref, dest); got.Skipped == 0 || got.Copied == 0 {
				t.Errorf("%s: the second pull: %+v", dest, got)
			}
			wholeBlobs(t, folder, "manifest.json", "manifest.json.sig", "oci-layout", "index.json",
				img.CID()+".json")
			e.Run("verify", there).Want(t, 0)
			if err := os.RemoveAll(folder); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestPullIntoReadOnly pulls into a read-only mount, new and where an image is already: exit code
// 7, nothing changed.
func TestPullIntoReadOnly(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		ref := e.Push(harness.Fixture(t, "basic"))
		dir := e.MakeDir("home/ro")
		carry(t, e, "pull", ref, "oci-layout:"+dir+"/l:v1")
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		before := sums(t, dir, nil)
		e.Set("PF_STORE", dir+"/store")
		for _, dest := range []string{"file://" + dir + "/f", "oci-layout:" + dir + "/l:v2", "store:"} {
			e.Run("pull", ref, dest).Want(t, 7, "read-only file system")
		}
		sameFiles(t, sums(t, dir, nil), before)
		e.Run("verify", "oci-layout:"+dir+"/l:v1").Want(t, 0)
	})
}
