package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// inCall says that a thread of a process of this binary waits in a system call.
func inCall(exe string, call int) bool {
	for _, pid := range harness.Pids(exe) {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
		for _, f := range files {
			if text, _ := os.ReadFile(f); strings.HasPrefix(string(text), fmt.Sprint(call)+" ") {
				return true
			}
		}
	}
	return false
}

// TestSecondSignal: a second signal ends every command at once that waits in a system call
// where no context reaches it, also before a mount stands, and nothing is left of it.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	img := harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{
		imgbuild.File("large", "0644", imgbuild.Pattern{Seed: 1, Len: 1 << 20}),
	}})
	// Opening a FIFO waits for a writer, writing to one for a reader.
	const opens = `mkfifo "$3"; bin=$1; ref=$2; fifo=$3; dir=$4; layout=$5; `
	for _, tt := range []struct {
		name, script string
		call         int
	}{
		{"mount", opens + `exec "$bin" --ca-file "$fifo" "$ref" "$dir"`, syscall.SYS_OPENAT},
		{"mount -f", opens + `exec "$bin" -f --ca-file "$fifo" "$ref" "$dir"`, syscall.SYS_OPENAT},
		{"inspect", opens + `exec "$bin" inspect --ca-file "$fifo" "$ref"`, syscall.SYS_OPENAT},
		{"ls", opens + `exec "$bin" ls --ca-file "$fifo" "$ref"`, syscall.SYS_OPENAT},
		{"warm", opens + `exec "$bin" warm --ca-file "$fifo" "$ref"`, syscall.SYS_OPENAT},
		{"verify", opens + `exec "$bin" verify --ca-file "$fifo" "$ref"`, syscall.SYS_OPENAT},
		{"exists", opens + `exec "$bin" exists --ca-file "$fifo" "$ref"`, syscall.SYS_OPENAT},
		{"doctor", opens + `exec "$bin" doctor --ca-file "$fifo" "$ref"`, syscall.SYS_OPENAT},
		{"pull", opens + `exec "$bin" pull --ca-file "$fifo" "$ref" "oci-layout:$dir/new:v1"`,
			syscall.SYS_OPENAT},
		{"push", opens + `exec "$bin" push --ca-file "$fifo" "oci-layout:$layout:minimal" "$ref"`,
			syscall.SYS_OPENAT},
		{"cat", opens + `exec 3<>"$fifo"; exec "$bin" cat "$ref" world/fs/large >&3`, syscall.SYS_WRITE},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			ref, dir := e.Push(img), e.MountDir()
			p := e.Command("sh", "-ec", tt.script, "sh", e.Bin, ref, e.Path("fifo"), dir,
				e.CopyFixture("layout"))
			harness.Eventually(t, time.Minute, "the wait", func() bool { return inCall(e.Bin, tt.call) })
			p.Signal(syscall.SIGINT)
			time.Sleep(time.Second) // the signals of programs that send one twice come together
			began := time.Now()
			p.Signal(syscall.SIGTERM)
			harness.Eventually(t, time.Minute, "the end", func() bool { return !p.Running() })
			t.Logf("ended %.1f s after the second signal", time.Since(began).Seconds())
			if r := p.Wait(harness.Limit); r.Code != 130 {
				t.Errorf("ended by %v", r)
			}
			harness.Eventually(t, time.Minute, "the end of its processes",
				func() bool { return len(harness.Pids(e.Bin)) == 0 })
			if lines := harness.MountLines(t, dir); len(lines) != 0 {
				t.Errorf("left: %v", lines)
			}
		})
	}
}
