package fusefs

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// dirent is one entry of getdents64(2).
type dirent struct {
	name string
	ino  uint64
	next int64 // d_off: where the listing goes on
	kind byte
}

// getdents reads the next entries of an open directory, at most size bytes of them.
func getdents(t testing.TB, fd, size int) (entries []dirent) {
	t.Helper()
	buf := make([]byte, size)
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		t.Fatal(err)
	}
	for buf = buf[:n]; len(buf) > 0; {
		length := binary.NativeEndian.Uint16(buf[16:])
		name, _, _ := strings.Cut(string(buf[19:length]), "\x00")
		entries = append(entries, dirent{
			name: name, ino: binary.NativeEndian.Uint64(buf),
			next: int64(binary.NativeEndian.Uint64(buf[8:])), kind: buf[18],
		})
		buf = buf[length:]
	}
	return entries
}

func openDir(t testing.TB, name string) int {
	t.Helper()
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// listing reads a whole directory in pieces of size bytes.
func listing(t testing.TB, name string, size int) (all []dirent) {
	t.Helper()
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for {
		part := getdents(t, fd, size)
		if len(part) == 0 {
			return all
		}
		all = append(all, part...)
	}
}

// seek moves a directory stream to where the entry's d_off says and checks that what comes next is want.
func checkSeek(t *testing.T, fd int, off int64, want []dirent) {
	t.Helper()
	if _, err := unix.Seek(fd, off, unix.SEEK_SET); err != nil {
		t.Fatal(err)
	}
	got := getdents(t, fd, 1024)
	if len(want) == 0 && len(got) != 0 {
		t.Errorf("at %d: %v, want the end", off, got[0])
	}
	if len(want) > 0 && (len(got) == 0 || got[0] != want[0]) {
		t.Errorf("at %d: %v, want %v", off, got, want[0])
	}
}

// TestLargeDirectory lists 50,000 names, whole, in pieces, from the kernel's cache and from every
// place again.
func TestLargeDirectory(t *testing.T) {
	const names = 50_000
	entries := []entry{dir("big"), dir("big/sub"), link("big/symlink", "x")}
	for i := range names - 2 {
		entries = append(entries, file(fmt.Sprintf("big/file-%06d", i), "same"))
	}
	im := newImage(t, entries...)
	m := testMount(t, im, Options{})
	big := m.path("world/fs/big")

	fd := openDir(t, big) // before anything is cached
	first := getdents(t, fd, 4096)
	all := listing(t, big, 32<<10)
	if len(all) != names+2 || all[0].name != "." || all[1].name != ".." {
		t.Fatalf("%d entries, beginning with %v, want %d", len(all), all[:2], names+2)
	}
	seen := make(map[string]bool)
	for i, e := range all {
		want := byte(unix.DT_REG)
		switch e.name {
		case ".", "..", "sub":
			want = unix.DT_DIR
		case "symlink":
			want = unix.DT_LNK
		}
		if seen[e.name] || e.kind != want || e.next != int64(i)+1 {
			t.Fatalf("entry %d: %+v, want kind %d and the next at %d; seen before: %v", i, e, want,
				i+1, seen[e.name])
		}
		seen[e.name] = true
	}
	for i, e := range first {
		if e != all[i] {
			t.Errorf("the first piece of an earlier listing: %v, want %v", e, all[i])
		}
	}
	again := listing(t, big, 1<<20)
	if len(again) != len(all) {
		t.Errorf("from the cache: %d entries, want %d", len(again), len(all))
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		i := r.IntN(len(all))
		checkSeek(t, fd, all[i].next, all[i+1:])
	}
	checkSeek(t, fd, all[len(all)-1].next, nil)
	checkSeek(t, fd, 1<<40, nil)
	checkSeek(t, fd, 0, all) // rewinddir
	if n := im.blobs.opened(""); n != 0 {
		t.Errorf("listing opened %d blobs", n)
	}
}

// TestSeekCold seeks in a directory of which the kernel has cached nothing, or only the beginning.
func TestSeekCold(t *testing.T) {
	entries := []entry{dir("d")}
	for i := range 1000 {
		entries = append(entries, file(fmt.Sprintf("d/f%04d", i), "x"))
	}
	all := listing(t, testMount(t, newImage(t, entries...), Options{}).path("world/fs/d"), 1<<20)
	m := testMount(t, newImage(t, entries...), Options{})
	fd := openDir(t, m.path("world/fs/d"))
	for _, i := range []int{700, 3, 999, 0, 1, 2, 500, 1001, 250} {
		checkSeek(t, fd, int64(i), all[i:])
	}
}

// TestListingFetchesNothing lists with attributes, which leaves a file of unknown size to an
// explicit stat.
func TestListingFetchesNothing(t *testing.T) {
	m := testMount(t, newImage(t, file("a", "x"), dir("d")), Options{})
	for _, name := range []string{".", "model", "world", "world/fs", "blobs/sha256"} {
		if _, err := os.ReadDir(m.path(name)); err != nil {
			t.Error(err)
		}
	}
	names := listing(t, m.path("model"), 4096)
	if len(names) != 4 {
		t.Errorf("model: %v, want ., .., base, diff.json", names)
	}
	if n := m.blobs.opened(""); n != 0 {
		t.Errorf("%d blobs were opened", n)
	}
}
