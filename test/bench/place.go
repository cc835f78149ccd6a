package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// place is a temporary folder, and everything that is started and mounted for it.
type place struct {
	dir    string // without symlinks
	binary string
	env    []string
}

func newPlace(parent, binary string) (*place, error) {
	if _, err := os.Stat(binary); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "pfmount-bench-")
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	p := &place{dir: dir, binary: binary}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "XDG_") && !strings.HasPrefix(v, "PF_") && !strings.HasPrefix(v, "OCI_") {
			p.env = append(p.env, v)
		}
	}
	p.env = append(p.env, "XDG_CACHE_HOME="+p.path("cache"), "XDG_STATE_HOME="+p.path("state"), "XDG_RUNTIME_DIR="+p.path("run"), "LC_ALL=C")
	return p, os.Mkdir(p.path("run"), 0o700)
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// run runs a command in dir and gives what it printed; anything on stderr is a failure, since a pipe
// hides the exit codes of its first parts.
func (p *place) run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, p.env, &stdout, &stderr
	// A group of its own: a Ctrl-C reaches it through ctx only, and all of a pipe ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	said := strings.TrimSpace(stderr.String())
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, said)
	}
	if said != "" && name != p.binary { // pfmount warns on stderr
		return "", fmt.Errorf("%s %s: %s", filepath.Base(name), strings.Join(args, " "), said)
	}
	return stdout.String(), nil
}

// mountsBelow lists the mount points below the folder, the last mounted first.
func (p *place) mountsBelow() []string {
	var list []string
	for _, m := range mountTable() {
		if strings.HasPrefix(m.dir, p.dir+"/") {
			list = append([]string{m.dir}, list...)
		}
	}
	return list
}

// servers lists the processes that serve something below the folder: mounts that went to the background.
func (p *place) servers() []int {
	var pids []int
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(data, []byte(p.dir+"/")) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(name, "/proc/%d/cmdline", &pid); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// clean unmounts, ends and removes whatever is left. It takes no context: it runs after an interrupt, too.
func (p *place) clean() error {
	for _, dir := range p.mountsBelow() {
		detach(dir)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for _, pid := range p.servers() {
			_ = syscall.Kill(pid, sig) // gone already is as good
		}
		for range 60 {
			if len(p.servers()) == 0 {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	if left := p.mountsBelow(); len(left) > 0 { // nothing may be removed below a mount
		return fmt.Errorf("left mounted: %s", strings.Join(left, ", "))
	}
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("left behind: %w", err)
	}
	return nil
}

// detach unmounts at once, used or not.
func detach(dir string) {
	if unix.Unmount(dir, unix.MNT_DETACH) != nil {
		_ = exec.Command("fusermount3", "-u", "-z", dir).Run() // seen by who looks at the mounts next
	}
}

// dropped says whether dropCaches does what it says.
func dropped() string {
	if os.Geteuid() != 0 {
		return "NOT dropped (that needs root)"
	}
	return "dropped"
}

// dropCaches empties the kernel's page, dentry and inode caches, which only root can; else it does nothing.
func dropCaches() error {
	if os.Geteuid() != 0 {
		return nil
	}
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}
