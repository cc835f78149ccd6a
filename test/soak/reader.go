package soak

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// job is one thing to read: a file, whose bytes stand in Truth, or a folder, whose names do (as JSON).
type job struct {
	Op          string
	Path, Truth string
	Seed        uint64
}

// reply is what came of a job. Err is an errno's name or SIGBUS; Wrong says how bytes or names differ.
type reply struct {
	Bytes      int64
	Err, Wrong string
}

// ops are the ways to read.
var ops = map[string]func(j job, want []byte) (int64, error){
	"whole": whole, "random": random, "mmap": mapped, "parallel": parallel, "signals": signals,
}

// wrong is an error that no fault excuses.
type wrong string

func (w wrong) Error() string { return string(w) }

// serve is a reader process: it does one job after the other.
func serve(in io.Reader, out io.Writer) error {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGALRM) // signals that come while the channel is full are dropped
	d, e := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var j job
		if err := d.Decode(&j); err != nil {
			return err
		}
		var r reply
		var err error
		if r.Bytes, err = do(j); err != nil {
			r.Err, r.Wrong = words(err)
		}
		if err := e.Encode(r); err != nil {
			return err
		}
	}
}

func do(j job) (int64, error) {
	want, err := os.ReadFile(j.Truth)
	if err != nil {
		return 0, wrong(err.Error())
	}
	if j.Op == "walk" {
		return 0, walk(j.Path, want)
	}
	return ops[j.Op](j, want)
}

func words(err error) (name, text string) {
	var w wrong
	var errno syscall.Errno
	switch {
	case errors.As(err, &w):
		return "", string(w)
	case errors.As(err, &errno):
		return unix.ErrnoName(errno), ""
	}
	return err.Error(), ""
}

// open opens a file past the kernel's cache of its content, as far as no other process has it
// mapped.
func open(path string, size int) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if st.Size != int64(size) {
		unix.Close(fd)
		return -1, wrong(fmt.Sprintf("size is %d, want %d", st.Size, size))
	}
	unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
	return fd, nil
}

// same compares a part of a file with the truth.
func same(got, want []byte, off int64) error {
	if bytes.Equal(got, want) {
		return nil
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	return wrong(fmt.Sprintf("from byte %d on: %x…, want %x… (%d bytes, want %d)", off+int64(at),
		got[at:min(len(got), at+16)], want[at:min(len(want), at+16)], len(got), len(want)))
}

// whole reads from start to end in pieces of one size.
func whole(j job, want []byte) (int64, error) {
	fd, err := open(j.Path, len(want))
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 512<<rand.New(rand.NewPCG(j.Seed, 1)).IntN(12))
	var off int64
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return off, err
		}
		if n == 0 {
			return off, same(nil, want[off:], off)
		}
		if err := same(buf[:n], want[off:min(int64(len(want)), off+int64(n))], off); err != nil {
			return off, err
		}
		off += int64(n)
	}
}

// random reads pieces here and there, also across the end.
func random(j job, want []byte) (int64, error) {
	fd, err := open(j.Path, len(want))
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	rng := rand.New(rand.NewPCG(j.Seed, 2))
	var sum int64
	for range 12 {
		off := rng.IntN(len(want) + 1)
		buf := make([]byte, 1+rng.IntN(64<<10))
		n, err := unix.Pread(fd, buf, int64(off))
		if err != nil {
			return sum, err
		}
		if err := same(buf[:n], want[off:min(len(want), off+len(buf))], int64(off)); err != nil {
			return sum, err
		}
		sum += int64(n)
	}
	return sum, nil
}

// mapped compares through mmap; a failed fetch is SIGBUS there.
func mapped(j job, want []byte) (n int64, err error) {
	if len(want) == 0 {
		return 0, nil
	}
	fd, err := open(j.Path, len(want))
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	m, err := unix.Mmap(fd, 0, len(want), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(m)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, errors.New("SIGBUS")
		}
	}()
	rng := rand.New(rand.NewPCG(j.Seed, 3))
	for range 4 { // pages here and there first, so that not all of it is read-ahead
		off := rng.IntN(len(want))
		end := min(len(want), off+100)
		if err := same(bytes.Clone(m[off:end]), want[off:end], int64(off)); err != nil {
			return 0, err
		}
	}
	return int64(len(want)), same(m, want, 0)
}

// parallel reads one file by four at once.
func parallel(j job, want []byte) (int64, error) {
	var wg sync.WaitGroup
	var n [4]int64
	var errs [4]error
	for i := range errs {
		wg.Go(func() { n[i], errs[i] = whole(job{Path: j.Path, Seed: j.Seed + uint64(i)}, want) })
	}
	wg.Wait()
	return n[0] + n[1] + n[2] + n[3], errors.Join(errs[:]...)
}

// signals reads while a timer sends a signal every few milliseconds, which must not show.
func signals(j job, want []byte) (int64, error) {
	const every = 3 * time.Millisecond
	tick := unix.NsecToTimeval(int64(every))
	if _, err := unix.Setitimer(unix.ITIMER_REAL, unix.Itimerval{Interval: tick, Value: tick}); err != nil {
		return 0, wrong(err.Error())
	}
	defer unix.Setitimer(unix.ITIMER_REAL, unix.Itimerval{})
	return whole(j, want)
}

// walk lists a folder and all below it and compares names, kinds, modes, sizes and link targets.
func walk(dir string, want []byte) error {
	var list []imgbuild.Want
	if err := json.Unmarshal(want, &list); err != nil {
		return wrong(err.Error())
	}
	nodes, err := harness.Walk(dir, false)
	if err != nil {
		return err
	}
	if diff := harness.Diff(nodes, list); len(diff) > 0 {
		return wrong(fmt.Sprintf("%d names differ, the first: %s", len(diff), diff[0]))
	}
	return nil
}
