package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

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
		within(6*time.Second, func() bool { return len(p.servers()) == 0 })
	}
	if left := p.mountsBelow(); len(left) > 0 { // nothing may be removed below a mount
		return fmt.Errorf("left mounted: %s", strings.Join(left, ", "))
	}
	if p.dir != p.base {
		// What was just ended may hold a file for a moment.
		if !within(10*time.Second, func() bool { return unix.Unmount(p.dir, 0) == nil }) &&
			disk(p.dir).dir == p.dir {
			detach(p.dir)
		}
	}
	if err := os.RemoveAll(p.base); err != nil {
		return fmt.Errorf("left behind: %w", err)
	}
	return nil
}

// within waits for a condition, and tells whether it came.
func within(d time.Duration, done func() bool) bool {
	for end := time.Now().Add(d); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// detach unmounts at once, used or not.
func detach(dir string) {
	if unix.Unmount(dir, unix.MNT_DETACH) != nil {
		_ = exec.Command("fusermount3", "-u", "-z", dir).Run() // a later look at the mounts reports a failure
	}
}
