package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/bench/report"
)

// peer is another read-only FUSE file system that shows the same tree.
type peer struct {
	name    string
	note    string // what makes the comparison fair
	needs   []string
	prepare func(context.Context, *session) error
	mount   func(context.Context, *session) (*mount, error)
}

// packages are where Debian has programs whose package has another name.
var packages = map[string]string{"mksquashfs": "squashfs-tools"}

// installed is errAbsent unless all programs are there.
func installed(programs ...string) error {
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			pkg := name
			if p, ok := packages[name]; ok {
				pkg = p
			}
			return errAbsent("not installed: apt-get install " + pkg)
		}
	}
	return nil
}

// peers are those that are compared, in the order of their columns.
func peers() []peer {
	return []peer{
		{
			name: "squashfuse", needs: []string{"squashfuse", "mksquashfs"},
			note: "squashfuse: an image on the same disk, zstd level 3, no checksums.",
			prepare: func(ctx context.Context, s *session) error {
				_, err := s.run(ctx, "", "mksquashfs", s.plain, s.path("tree.squashfs"), "-comp",
					"zstd", "-Xcompression-level", "3", "-no-progress", "-quiet")
				return err
			},
			mount: func(ctx context.Context, s *session) (*mount, error) {
				return s.mountPeer(ctx, "", squashfuse(), s.shared("tree.squashfs"))
			},
		},
		{
			name: "restic", needs: []string{"restic"},
			note: "restic mount: a repository on the same disk, its index and metadata cached, content compressed and encrypted there.",
			prepare: func(ctx context.Context, s *session) error {
				if _, err := s.run(ctx, "", "restic", "-q", "init", "-r", s.path("tree.restic")); err != nil {
					return err
				}
				_, err := s.run(ctx, s.plain, "restic", "-q", "backup", "-r", s.path("tree.restic"), ".")
				// The ordinary user reads it, too; what restic wrote is for its owner alone.
				return errors.Join(err, exec.Command("chmod", "-R", "a+rX", s.path("tree.restic")).Run())
			},
			mount: func(ctx context.Context, s *session) (*mount, error) {
				return s.mountPeer(ctx, "/snapshots/latest", "restic", "-q", "mount", "--no-lock",
					"-r", s.shared("tree.restic"))
			},
		},
		{
			name: "rclone", needs: []string{"rclone"},
			note: "rclone mount: its local backend on the plain tree, so no network, no decoding and no checks; the mode that caches files whole " +
				"(without it a random read takes 20 ms), attributes and folders cached for hours.",
			mount: func(ctx context.Context, s *session) (*mount, error) {
				return s.mountPeer(ctx, "", "rclone", "mount", "--config", "", "--read-only",
					"--vfs-cache-mode", "full", "--vfs-cache-max-age", "24h",
					"--dir-cache-time", "24h", "--attr-timeout", "1h", "--poll-interval", "0", ":local:"+s.plain)
			},
		},
	}
}

// squashfuse is the fastest form of it that is installed.
func squashfuse() string {
	if _, err := exec.LookPath("squashfuse_ll"); err == nil {
		return "squashfuse_ll"
	}
	return "squashfuse"
}

// shared is a file of the place in which the session was made, which another user's place lies in.
func (s *session) shared(name string) string {
	return strings.TrimSuffix(s.plain, "plain") + name
}

// ready is how long a mount may take to appear.
const ready = time.Minute

// mountPeer runs a file system's command with a mount point added; it may stay in the foreground or
// leave a process behind. The mount is there when the tree's large file can be seen below.
func (s *session) mountPeer(ctx context.Context, below, name string, args ...string) (*mount, error) {
	at := s.path("mnt-" + name)
	if err := s.mkdir("mnt-" + name); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(s.path("mnt-"+name+".log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	before, start := s.servers(), time.Now()
	// Not bound to ctx: it lives until it is unmounted, or ended with the place.
	cmd := s.command(context.WithoutCancel(ctx), append(append([]string{name}, args...), at), nil)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	m := &mount{root: at + below,
		close: func(ctx context.Context) error { return s.unmountPeer(ctx, at, cmd, ended) }}
	probe := m.root + "/big.bin"
	seen := within(ready, func() bool {
		if ctx.Err() != nil {
			return true
		}
		return disk(at).dir == at && s.sees(ctx, probe)
	})
	if !seen || ctx.Err() != nil {
		said, _ := os.ReadFile(log.Name())
		return nil, errors.Join(context.Cause(ctx),
			fmt.Errorf("%s did not mount within %v: %s", name, ready,
				said), m.close(context.WithoutCancel(ctx)))
	}
	m.took = time.Since(start)
	for _, pid := range s.servers() {
		if !slices.Contains(before, pid) {
			m.pid = pid
		}
	}
	return m, nil
}

// sees tells whether the place's user finds a file; only the user that mounted may look.
func (s *session) sees(ctx context.Context, file string) bool {
	if s.cred == nil {
		_, err := os.Stat(file)
		return err == nil
	}
	_, err := s.run(ctx, "", "test", "-e", file)
	return err == nil
}

// unmountPeer ends a mount and waits for its process.
func (s *session) unmountPeer(ctx context.Context, at string, cmd *exec.Cmd, ended chan struct{}) error {
	var err error
	if disk(at).dir == at {
		if !within(10*time.Second, func() bool { return unix.Unmount(at, 0) == nil || disk(at).dir != at }) {
			err = fmt.Errorf("%s could not be unmounted", at)
			detach(at)
		}
	}
	gone := func() bool {
		for _, pid := range s.servers() {
			if data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline",
				pid)); strings.Contains(string(data), at) {
				return false
			}
		}
		return true
	}
	if !within(10*time.Second, gone) {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	select {
	case <-ended:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(ready):
		return errors.Join(err, fmt.Errorf("%s still runs", cmd.Path))
	}
}

// versions are those of all programs that are compared.
func (b *bench) versions(ctx context.Context) []report.Tool {
	var list []report.Tool
	for _, t := range []struct{ name, program, arg string }{
		{"squashfuse", "squashfuse", "--help"}, {"mksquashfs", "mksquashfs", "-version"},
		{"restic", "restic", "version"},
		{"rclone", "rclone", "version"}, {"fio", "fio", "--version"}, {"zstd", "zstd", "--version"},
		{"curl", "curl", "--version"},
	} {
		if err := installed(t.program); err != nil {
			list = append(list, report.Tool{Name: t.name,
				Missing: strings.TrimPrefix(err.Error(), "not installed: ")})
			continue
		}
		// Some end with a failure after they printed their version.
		text, _ := exec.CommandContext(ctx, t.program, t.arg).CombinedOutput()
		list = append(list, report.Tool{Name: t.name, Version: versionNumber.FindString(string(text))})
	}
	carriers, err := b.tools(ctx)
	if err != nil {
		return append(list, report.Tool{Name: "oras, pf", Missing: err.Error()})
	}
	for _, t := range carriers[1:] {
		list = append(list, report.Tool{Name: t.name, Version: t.version,
			Missing: strings.TrimPrefix(t.absent, "not installed: ")})
	}
	return list
}

// versionNumber is the first thing that looks like one.
var versionNumber = regexp.MustCompile(`[0-9]+(\.[0-9]+)+[-\w.]*`)
