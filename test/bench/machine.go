package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/bench/report"
)

// mountEntry is what is read of a line of mountinfo (proc(5)).
type mountEntry struct{ dir, kind, source string }

// mountTable lists the mounts that this process sees, in order.
func mountTable() []mountEntry {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var list []mountEntry
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		a, b := strings.Fields(before), strings.Fields(after)
		if len(a) > 4 && len(b) > 1 {
			list = append(list, mountEntry{unescape.Replace(a[4]), b[0], unescape.Replace(b[1])})
		}
	}
	return list
}

// disk is the mount that a folder is on.
func disk(dir string) mountEntry {
	best := mountEntry{kind: "plain"}
	for _, m := range mountTable() {
		inside := m.dir == "/" || dir == m.dir || strings.HasPrefix(dir, m.dir+"/")
		if inside && len(m.dir) >= len(best.dir) {
			best = m
		}
	}
	return best
}

// describe learns what the numbers are measured on and with.
func (b *bench) describe(ctx context.Context) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	text, err := b.run(ctx, "", b.binary, "--version")
	if err != nil {
		return err
	}
	b.product = strings.TrimPrefix(strings.TrimSpace(text), "pfmount version ")
	create, err := b.createTime()
	if err != nil {
		return err
	}
	d := disk(b.dir)
	kind := d.kind + " of " + disk(filepath.Dir(b.base)).kind
	if b.dir != b.base {
		kind = "a new " + d.kind + " on a loop device, in a file on " + disk(b.base).kind
	}
	fmt.Fprintf(os.Stderr, "bench: pfmount %s on %s; making an empty file takes %v\n", b.product,
		kind, create.Round(time.Microsecond))
	if create > slowCreate {
		fmt.Fprintln(os.Stderr, "bench: that is SLOW, and cold fills pay it once a blob: ext4 is slow for minutes after thousands of files were deleted")
	}
	if free, need := procBytes("/proc/meminfo", "MemAvailable"), 9*b.opts.shape.big; free < need {
		fmt.Fprintf(os.Stderr, "bench: only %d MB of memory are available: what is called warm may come from the disk; use a smaller -big\n", free>>20)
	}
	b.report.On(report.Machine{
		CPU: processor(), Cores: runtime.NumCPU(), Memory: procBytes("/proc/meminfo", "MemTotal"),
		Kernel: unix.ByteSliceToString(u.Release[:]),
		Go:     runtime.Version(), Disk: kind,
	}, append([]report.Tool{{Name: "pfmount", Version: b.product}}, b.versions(ctx)...))
	return nil
}

// slowCreate is several times what making a file takes on an ext4 at rest.
const slowCreate = 60 * time.Microsecond

// createTime is the median time of making an empty file in the folder: the least that a cache pays
// for a blob.
func (p *place) createTime() (time.Duration, error) {
	dir := p.path("created")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, err
	}
	var times []time.Duration
	for i := range 500 {
		start := time.Now()
		f, err := os.OpenFile(fmt.Sprintf("%s/%d", dir, i), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o400)
		if err != nil {
			return 0, err
		}
		times = append(times, time.Since(start))
		f.Close() // nothing was written
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

func processor() string {
	data, _ := os.ReadFile("/proc/cpuinfo") // without it there is no name, that is all
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// procBytes reads a line in kB of a file of /proc, in bytes; 0 when there is none.
func procBytes(file, key string) int64 {
	data, _ := os.ReadFile(file) // a process that ended has no numbers
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10
		}
	}
	return 0
}
