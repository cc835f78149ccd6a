package layout

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// BlockSize is what a file of one byte takes on the file systems in use.
	BlockSize = 4096
	// NameCost is added for each file's name, since directories grow too: 68 bytes and a half-empty
	// index.
	NameCost = 160
	// Overhead is what a cache takes without blobs and records: its directories, usage, evict.lock
	// and CACHEDIR.TAG.
	Overhead = 8 * BlockSize
	// UsageFormat is the usage file: bytes on disk, and the boot in which they were last counted.
	UsageFormat = "%020d %s\n"
	UsageSize   = 20 + 1 + 36 + 1
)

// WriteUsage writes the number, and once more as the file's mtime. That is metadata, so journaling
// file systems keep it in step with the renames; the content may come back from a power cut older
// than the files it counts, and differs from the mtime then.
func WriteUsage(fd int, n int64, boot string) error {
	n = max(n, 0)
	if _, err := WriteFull(fd, fmt.Appendf(nil, UsageFormat, n, boot), 0); err != nil {
		return err
	}
	return SetTimes(fd, time.Time{}, UsageTime(n))
}

// UsageTime is a time that stands for n: seconds for the MiB, and the rest in a fraction that
// survives rounding to 100 ns.
func UsageTime(n int64) time.Time { return time.Unix(n>>20, n&(1<<20-1)*900) }

// Agrees says whether the mtime of the usage file is that of n, as far as the file system keeps it.
func Agrees(st *unix.Stat_t, n int64) bool {
	want := UsageTime(n)
	nsec := int64(st.Mtim.Nsec)
	return int64(st.Mtim.Sec) == want.Unix() && (nsec == 0 || nsec == int64(want.Nanosecond()))
}

// ParseUsage reads what WriteUsage writes.
func ParseUsage(text string) (n int64, boot string, ok bool) {
	number, boot, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || len(number) != 20 || len(boot) != 36 {
		return 0, "", false
	}
	return n, boot, true
}

// EstimateUsage reads the usage number through a descriptor of its own and without its lock.
func EstimateUsage(f *Folder) (used int64, ok bool) {
	fd, err := OpenState(f.Root, "usage")
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var buf [UsageSize]byte
	n, _ := ReadFull(fd, buf[:], 0)
	used, _, ok = ParseUsage(string(buf[:n]))
	return used, ok
}

// BootID changes with every boot. A number written before a power cut may miss the last fills, so
// it is counted anew.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if id := strings.TrimSpace(string(b)); err == nil && len(id) == 36 {
		return id
	}
	return strings.Repeat("-", 36)
}
