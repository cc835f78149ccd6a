package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

func setUsage(t *testing.T, path string, n int64, boot string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	must(t, errors.Join(layout.WriteUsage(int(f.Fd()), n, boot), f.Close()))
}

func TestUsageFile(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(t *testing.T, path string){
		"missing": func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"empty":   func(t *testing.T, path string) { cut(t, path, 0) },
		"zeros":   func(t *testing.T, path string) { must(t, os.WriteFile(path, make([]byte, 58), 0o600)) },
		"text": func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("no ", 100)), 0o600))
		},
		"negative": func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte("-0000000000000000001 x\n"), 0o600))
		},
		"other boot": func(t *testing.T, path string) { setUsage(t, path, 5, strings.Repeat("a", 36)) },
		"too high":   func(t *testing.T, path string) { setUsage(t, path, 1<<50, layout.BootID()) },
		"content of before a power cut": func(t *testing.T, path string) {
			rewrite(t, path, 0, fmt.Appendf(nil, layout.UsageFormat, 5, layout.BootID()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := testStore(t, Options{Dir: dir})
			for i := range 20 {
				mustGet(t, s, content(i, 5000), new(source).fill(content(i, 5000)))
			}
			do(t, filepath.Join(dir, "usage"))
			data := content(50, 5000)
			mustGet(t, s, data, new(source).fill(data))
			eventually(t, "usage is counted anew", func() bool {
				n := usageOf(t, dir)
				return n >= du(t, dir) && n < du(t, dir)+100_000
			})
			if got := len(kept(dir, 20, 5000)); got != 20 {
				t.Errorf("%d of 20 left", got)
			}
		})
	}
}

// Somebody holds evict.lock for long: the limit holds all the same, the blob is served and not kept.
func TestEvictorStuck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	size := int64(layout.Overhead) + 60_000
	s := testStore(t, Options{Dir: dir, Size: size}, func(l *limits) { l.WaitLimit = 50 * time.Millisecond })
	lock, err := os.OpenFile(filepath.Join(dir, "evict.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	defer lock.Close()
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	for i := range 10 {
		mustGet(t, s, content(i, 10_000), new(source).fill(content(i, 10_000)))
		if n := du(t, dir); n > size {
			t.Fatalf("%d on disk, limit %d", n, size)
		}
	}
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_UN))
	last := content(20, 10_000)
	mustGet(t, s, last, new(source).fill(last))
	if !exists(blobFile(dir, last)) {
		t.Error("not kept although eviction works again")
	}
}

// What is no blob is left alone, or removed when it sits where blobs are; a sidecar without a blob goes.
func TestScanTidies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir}, tiny)
	data := content(1, 100)
	mustGet(t, s, data, new(source).fill(data))
	orphan := blobFile(dir, data)
	shard := filepath.Dir(orphan)
	letter := filepath.Join(shard, "letter")
	must(t, os.WriteFile(letter, nil, 0o600))
	link := filepath.Join(shard, filepath.Base(shard)+strings.Repeat("0", 62))
	must(t, os.Symlink("/etc/passwd", link))
	must(t, os.Remove(orphan))
	must(t, os.Chtimes(orphan+layout.SumsSuffix, time.Now(), time.Now().Add(-time.Hour)))
	_, _, err := s.Prune(context.Background(), 1<<40)
	must(t, err)
	if exists(orphan+layout.SumsSuffix) || exists(link) || !exists(letter) {
		t.Errorf("orphan %v, link %v, letter %v", exists(orphan+layout.SumsSuffix), exists(link),
			exists(letter))
	}
}
