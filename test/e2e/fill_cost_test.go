package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// diskCalls are the system calls by which a file gets into the cache. Those of network and
// scheduler depend on the machine.
const diskCalls = "openat,openat2,close,flock,pread64,pwrite64,ftruncate,fchmod,fchmodat,utimensat,mkdirat,renameat,renameat2," +
	"linkat,unlinkat,fsync,fdatasync,sync_file_range,fallocate"

// TestFillCost counts what a small file costs on its way into the cache: one request, and so many
// system calls on the disk. A lock, a sync or an open more for each of a tree's files would show
// here.
func TestFillCost(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "") // strace needs root
	const files = 400
	image := func(from int) (string, *imgbuild.Image) {
		img := harness.Build(t, imgbuild.Spec{Seq: imgbuild.Folders(4, files/4, func(n int) imgbuild.Content {
			return imgbuild.Text(strings.Repeat(fmt.Sprintf("file %d\n", from+n), 500))
		})})
		return e.Push(img), img
	}
	first, _ := image(0) // makes most of the cache's directories
	e.Run("warm", first).Want(t, 0)
	ref, img := image(1_000_000)
	srv := e.Registry()
	srv.Reset()
	out := filepath.Join(e.Dir, "calls")
	e.Command("strace", "-f", "-qq", "-c", "-o", out, "-e", "trace="+diskCalls, e.Bin, "warm",
		ref).Wait(harness.Limit).Want(t, 0)

	calls, all := countCalls(t, out), 0
	for _, n := range calls {
		all += n
	}
	t.Logf("%.1f calls a file: %v", float64(all)/files, calls)
	// It was 19.0 a file when this was written, the program's start and some directories included.
	const most = files * 39 / 2
	if all > most {
		t.Errorf("%d system calls on the disk for %d files, want at most %d: %v", all, files, most, calls)
	}
	for _, name := range []string{"fsync", "fdatasync", "unlinkat"} {
		if calls[name] > files/20 {
			t.Errorf("%d times %s for %d files", calls[name], name, files)
		}
	}
	for blob, n := range srv.Gets(faultreg.Blob) {
		if n != 1 {
			t.Errorf("%s was asked for %d times", blob, n)
		}
	}
	if n, want := len(srv.Gets(faultreg.Blob)), len(img.Layers)+1; n > want {
		t.Errorf("%d blobs were asked for, the image has %d", n, want)
	}
}

// countCalls reads what strace -c wrote.
func countCalls(t *testing.T, path string) map[string]int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	for line := range strings.Lines(string(data)) {
		// % time, seconds, usecs/call, calls, errors (may be left out), syscall
		f := strings.Fields(line)
		if len(f) < 5 || f[len(f)-1] == "total" {
			continue
		}
		if n, err := strconv.Atoi(f[3]); err == nil {
			calls[f[len(f)-1]] = n
		}
	}
	if calls["renameat"] == 0 {
		t.Fatalf("strace counted no rename:\n%s", data)
	}
	return calls
}
