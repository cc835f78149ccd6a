package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// limited mounts ref with the daemon in a memory cgroup of that many bytes; other commands run outside.
func limited(t *testing.T, e *harness.Env, ref string, bytes int64) *harness.Mount {
	t.Helper()
	e.Prefix = harness.MemoryLimit(t, bytes)
	m := e.Mount(ref)
	e.Prefix = nil
	return m
}

// TestHugeFile: a file of 3 GB is read through a daemon that may have 300 MB; its end costs
// no more than its start, and small reads of the warm file are small and local.
func TestHugeFile(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "") // cgroups need root
	p := imgbuild.Pattern{Seed: 6, Len: 3_000_000_000}
	img := harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.File("huge", "0644", p)}})
	m := limited(t, e, e.Push(img), 300<<20)
	if r := e.Sh(`sha256sum <"$1"`, m.Path("world/fs/huge")).Want(t,
		0); r.Stdout[:64] != strings.TrimPrefix(img.Digest("world/fs/huge"), "sha256:") {
		t.Errorf("wrong content: %v", r)
	} else {
		t.Logf("cold sha256sum: %v", r.Took)
	}
	e.Registry().Reset()
	f, err := os.Open(m.Path("world/fs/huge"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const part = 100_000_000
	first, last := daemonReads(t, m, f, p, 0, part), daemonReads(t, m, f, p, p.Len-part, part)
	t.Logf("for the first 100 MB the daemon read %d bytes, for the last %d", first, last)
	if first < part || last > first+first/2 {
		t.Errorf("the last 100 MB cost %d bytes of reads, the first %d", last, first)
	}
	forget(t, f)
	before, got, want := harness.BytesRead(t, m.PID), make([]byte, 4096), make([]byte, 4096)
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		at := random.Int64N(p.Len - 4096)
		if _, err := f.ReadAt(got, at); err != nil {
			t.Fatal(err)
		}
		if p.ReadAt(want, at); string(got) != string(want) {
			t.Fatalf("wrong bytes at %d", at)
		}
	}
	// The kernel reads ahead; a read that took the file from its start would cost a gigabyte.
	if n := harness.BytesRead(t, m.PID) - before; n > 1000*(1<<20) {
		t.Errorf("for 1,000 small reads the daemon read %d bytes", n)
	}
	silent(t, e.Registry(), "warm reads")
	peak := harness.Peak(t, m.PID)
	t.Logf("peak memory %d MB", peak>>20)
	if peak > 250<<20 {
		t.Errorf("peak of %d bytes under a limit of 300 MiB", peak)
	}
	f.Close()
	m.Unmount()
}

// forget drops the kernel's pages of a file, so that the next read asks the daemon.
func forget(t *testing.T, f *os.File) {
	t.Helper()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

// daemonReads reads a part of a file past the kernel's cache, checks it and returns how many bytes the
// daemon read for it.
func daemonReads(t *testing.T, m *harness.Mount, f *os.File, p imgbuild.Pattern, at, n int64) int64 {
	t.Helper()
	forget(t, f)
	before := harness.BytesRead(t, m.PID)
	got, want := make([]byte, 1<<20), make([]byte, 1<<20)
	for done := int64(0); done < n; {
		c, err := f.ReadAt(got[:min(int64(len(got)), n-done)], at+done)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if p.ReadAt(want[:c], at+done); string(got[:c]) != string(want[:c]) {
			t.Fatalf("wrong bytes at %d", at+done)
		}
		done += int64(c)
	}
	return harness.BytesRead(t, m.PID) - before
}

// TestLargeFilesAtOnce: ten files of 300 MB are read at once through a daemon that may have
// 300 MB, each fetched once.
func TestLargeFilesAtOnce(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "") // cgroups need root
	var spec imgbuild.Spec
	for i := range 10 {
		spec.Entries = append(spec.Entries, imgbuild.File(fmt.Sprint("f", i), "0644",
			imgbuild.Pattern{Seed: uint64(i), Len: 300_000_000}))
	}
	img := harness.Build(t, spec)
	m := limited(t, e, e.Push(img), 300<<20)
	e.Registry().Reset()
	var readers []*harness.Process
	for i := range 10 {
		readers = append(readers, e.Command("sha256sum", m.Path(fmt.Sprint("world/fs/f", i))))
	}
	for i, p := range readers {
		r := p.Wait(2*harness.Limit).Want(t, 0)
		if path := fmt.Sprint("world/fs/f",
			i); r.Stdout[:64] != strings.TrimPrefix(img.Digest(path), "sha256:") {
			t.Errorf("%s: wrong content: %v", path, r)
		} else if n := e.Registry().Count(faultreg.Match{Ref: img.WireOf(path)}); n != 1 {
			t.Errorf("%s: %d requests", path, n)
		}
	}
	peak := harness.Peak(t, m.PID)
	t.Logf("peak memory %d MB", peak>>20)
	if peak > 250<<20 {
		t.Errorf("peak of %d bytes under a limit of 300 MiB", peak)
	}
	m.Unmount()
}
