package crash

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/harness"
)

// TestSpaceComesBack: what another process evicts is free soon, although a mount has it open, and the
// mount reads on.
func TestSpaceComesBack(t *testing.T) {
	t.Parallel()
	r := imageRig(t)
	dir := r.Tmpfs("disk", 80<<20)
	r.cache = filepath.Join(dir, "cache")
	m := r.Mount(r.ref, "--cache-dir="+r.cache)
	used := func() int64 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Blocks-st.Bfree) * st.Bsize
	}
	m.Compare("world/fs", r.want)
	if n := used(); n < 30<<20 {
		t.Fatalf("%d bytes used after all was read", n)
	}
	r.Run("cache", "prune", "--cache-dir="+r.cache).Want(t, 0)
	harness.Eventually(t, time.Minute, "evicted space", func() bool { return used() < 4<<20 })
	for _, to := range harness.FDs(t, m.PID) {
		if strings.HasPrefix(to, r.cache+"/blobs/") {
			t.Errorf("still open: %s", to)
		}
	}
	harness.DropCaches(t)
	m.Compare("world/fs", r.want)
}

// TestManyCached: 200,000 blobs in the cache do not slow a start: nothing is scanned.
func TestManyCached(t *testing.T) {
	t.Parallel()
	r := imageRig(t)
	disk := r.LoopExt4("disk", 256<<20)
	r.cache = filepath.Join(disk, "cache")
	trace := filepath.Join(r.Dir, "trace")
	listed := func(paths ...string) int {
		r.Prefix = []string{"strace", "-f", "-qq", "-o", trace, "-e", "trace=getdents64"}
		args := []string{"warm", "--cache-dir=" + r.cache, "--cache-min-free=0", r.ref}
		r.Run(append(args, paths...)...).Want(t, 0)
		r.Prefix = nil
		data, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(data), "getdents64(")
	}
	const path = "world/fs/d0000/f0003.txt"
	r.Run("warm", "--cache-dir="+r.cache, r.ref, path).Want(t, 0)
	before := listed(path)
	plant(t, r.cache, 200_000)
	if after := listed(path); after > before+10 {
		t.Errorf("a start lists folders %d times with few blobs, %d times with 200,000", before, after)
	}
	m := r.Mount(r.ref, "--cache-dir="+r.cache, "--cache-min-free=0")
	m.Read(path)
	m.Unmount()
	if n := listed(); n > 50 {
		t.Errorf("%d folders were listed while the image was fetched", n)
	}
	a := r.Run("cache", "info", "--cache-dir="+r.cache).Want(t, 0).Stdout
	if !strings.Contains(a, " 200") {
		t.Errorf("cache info does not see them:\n%s", a)
	}
}

// plant puts n more names into a cache. Hard links to four files: it is the names that would cost.
func plant(t *testing.T, cache string, n int) {
	t.Helper()
	var from string
	for i := range n {
		name := hex.EncodeToString(sum(uint64(i)))
		dir := filepath.Join(cache, "blobs", name[:2])
		path := filepath.Join(dir, name)
		err := os.MkdirAll(dir, 0o700)
		if err == nil && i%50_000 == 0 {
			from, err = path, os.WriteFile(path, []byte("x"), 0o400)
		} else if err == nil {
			err = os.Link(from, path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func sum(n uint64) []byte {
	s := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
	return s[:]
}
