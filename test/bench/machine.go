package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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

// describe prints what the numbers were measured on.
func (p *place) describe(ctx context.Context, out io.Writer) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	version, err := p.run(ctx, "", p.binary, "--version")
	if err != nil {
		return err
	}
	create, err := p.createTime()
	if err != nil {
		return err
	}
	d := disk(p.dir)
	fmt.Fprintf(out, "machine  %s, %d cores, %s memory, Linux %s, %s\n", processor(), runtime.NumCPU(), memoryTotal(), unix.ByteSliceToString(u.Release[:]), runtime.Version())
	slow := ""
	if create > 60*time.Microsecond {
		slow = ", which is SLOW: cold fills pay it once a blob (ext4 is slow for minutes after thousands of files were deleted)"
	}
	fmt.Fprintf(out, "disk     %s on %s (the temporary folder's; cache, squashfs image and plain tree are all there); making an empty file takes %v%s\n", d.kind, d.source, create.Round(time.Microsecond), slow)
	fmt.Fprintf(out, "product  %s\n", strings.TrimSpace(version))
	fmt.Fprintf(out, "peers    %s\n", peers())
	who, caches := "root", "the kernel's caches are dropped before each cold run"
	if os.Geteuid() != 0 {
		who, caches = "an ordinary user", "NOT ROOT, so the kernel's caches are not dropped: what is called cold is only as cold as a remount makes it"
	}
	fmt.Fprintf(out, "user     %s; %s\n", who, caches)
	_, err = fmt.Fprintf(out, "registry in this process, on the same cores; times are medians (min..max), ratios compare with %s beside them\n", d.kind)
	return err
}

// createTime is the median time of making an empty file in the folder: the least that a cache pays for a blob.
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
	return median(times), nil
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

func memoryTotal() string {
	return fmt.Sprintf("%.0f GiB", float64(procBytes("/proc/meminfo", "MemTotal"))/(1<<30))
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

// peers names the versions of what is compared.
func peers() string {
	if squashfuse() == "" {
		return "none installed (squashfuse and mksquashfs would be measured too)"
	}
	// Both end with a failure after they printed their version.
	text, _ := exec.Command(squashfuse(), "--help").CombinedOutput()
	mk, _ := exec.Command("mksquashfs", "-version").CombinedOutput()
	return firstLine(text) + ", " + firstLine(mk)
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line
}
