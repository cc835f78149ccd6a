package disk

import (
	"bytes"
	"crypto/sha256"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testDir(t *testing.T, o Options) *Dir {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.MinFree = -1 // the machine's disk is not the tests' business
	d, err := Open(o)
	must(t, err)
	t.Cleanup(d.Close)
	return d
}

// put fills a blob of n bytes, all of them b.
func put(t *testing.T, d *Dir, b byte, n int) digest {
	t.Helper()
	data := bytes.Repeat([]byte{b}, n)
	key := sha256.Sum256(data)
	p, _, err := d.Claim(t.Context(), key, int64(n))
	must(t, err)
	_, err = p.Write(data)
	must(t, err)
	blob, err := p.Publish(t.Context())
	must(t, err)
	blob.Close()
	return key
}

// setAge makes a blob as old as minutes say.
func setAge(t *testing.T, d *Dir, key digest, minutes int) {
	t.Helper()
	at := time.Now().Add(-time.Duration(minutes) * time.Minute)
	must(t, os.Chtimes(filepath.Join(d.path, "blobs", layout.BlobPath(key)), at, time.Time{}))
}

// A blob that is used between the scan and its turn stays, by whatever process: no use is lost.
func TestUsedSinceScan(t *testing.T) {
	t.Parallel()
	reader := testDir(t, Options{})
	var keys []digest
	for i := range 4 {
		keys = append(keys, put(t, reader, byte(i), 5000))
		setAge(t, reader, keys[i], 60-i)
	}
	lim, used := DefaultLimits(), false
	lim.At = func(point string) {
		if point == "evict" && !used {
			used = true
			b, err := reader.Lookup(t.Context(), keys[0], 5000)
			must(t, err)
			b.Close()
		}
	}
	d := testDir(t, Options{Dir: reader.path, Limits: &lim})
	f, err := d.use()
	must(t, err)
	defer d.done(f)
	_, n, err := d.quota.evict(t.Context(), f,
		eviction{goal: func(used int64) int64 { return used - 2*8192 }})
	var left []int
	for i, key := range keys {
		if d.Has(key) {
			left = append(left, i)
		}
	}
	if err != nil || n != 2 || !slices.Equal(left, []int{0, 3}) {
		t.Errorf("%d evicted, left %v, %v; want the one just used and the youngest", n, left, err)
	}
}

// A gigabyte of unsigned size takes few steps.
func TestUnsignedSteps(t *testing.T) {
	t.Parallel()
	lim, steps := DefaultLimits(), 0
	lim.At = func(point string) {
		if point == "enlarge" {
			steps++
		}
	}
	d := testDir(t, Options{Limits: &lim})
	p, _, err := d.Claim(t.Context(), digest{1}, -1)
	must(t, err)
	for ; p.off < 1<<30; p.off += 256 << 10 {
		must(t, p.room(256<<10))
	}
	p.off = 0
	must(t, p.trim())
	p.Abandon(nil)
	if steps > 30 {
		t.Errorf("%d steps", steps)
	}
}

// Only a regular file of this user can be a blob.
func TestOurs(t *testing.T) {
	t.Parallel()
	uid := uint32(os.Geteuid())
	for name, c := range map[string]struct {
		st   unix.Stat_t
		want bool
	}{
		"own":            {unix.Stat_t{Mode: unix.S_IFREG, Uid: uid}, true},
		"another user's": {unix.Stat_t{Mode: unix.S_IFREG, Uid: uid + 1}, false},
		"a directory":    {unix.Stat_t{Mode: unix.S_IFDIR, Uid: uid}, false},
	} {
		if got := ours(&c.st); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestFileSystem(t *testing.T) {
	t.Parallel()
	for magic, want := range map[int64]struct {
		name   string
		remote bool
	}{
		0xef53:             {"ext4", false},
		0x01021994:         {"tmpfs", false},
		0x6969:             {"nfs", true},
		0xff534d42:         {"smb", true},
		0xff534d42 - 1<<32: {"smb", true}, // where the kernel's number is a signed one of 32 bits
		0x01021997:         {"9p", true},
		0x1234:             {"0x1234", false},
	} {
		name, warning := fileSystem(magic)
		if name != want.name || (warning != "") != want.remote {
			t.Errorf("fileSystem(%#x) = %q, %q", magic, name, warning)
		}
	}
}

func TestWarner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := &warner{log: slog.New(slog.NewTextHandler(&log, nil)), every: 50 * time.Millisecond}
		for range 1000 {
			w.warn("one")
		}
		w.warn("two")
		if strings.Count(log.String(), "one") != 1 || strings.Count(log.String(), "two") != 1 {
			t.Errorf("%d and %d lines", strings.Count(log.String(), "one"),
				strings.Count(log.String(), "two"))
		}
		time.Sleep(60 * time.Millisecond)
		w.warn("one")
		if strings.Count(log.String(), "suppressed=999") != 1 {
			t.Errorf("no word of those kept back: %s", log.String())
		}
	})
}

// What was hashed is remembered per file and chunk, in bounded memory.
func TestSeen(t *testing.T) {
	t.Parallel()
	c := newSeen()
	a, b := [32]byte{1}, [32]byte{2}
	c.add(a, 7, 3)
	for name, x := range map[string]struct {
		key   digest
		ino   uint64
		chunk int64
		want  bool
	}{
		"itself":      {a, 7, 3, true},
		"other key":   {b, 7, 3, false},
		"other file":  {a, 8, 3, false},
		"other chunk": {a, 7, 4, false},
		"whole":       {a, 7, allChunks, false},
	} {
		if got := c.has(x.key, x.ino, x.chunk); got != x.want {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
	for i := range int64(2 * seenSlots) {
		c.add(b, 1, i)
	}
	if !c.has(b, 1, 2*seenSlots-1) {
		t.Error("the last one is forgotten")
	}
}
