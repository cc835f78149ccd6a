package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// place is a temporary folder, and everything that is started and mounted for it by one user.
type place struct {
	name   string // of the user
	dir    string // without symlinks
	base   string // what is removed at the end; dir, or the folder that holds its disk
	binary string
	env    []string
	cred   *syscall.Credential // nil: this process's
}

// mostDisk and leastDisk bound the disk that is made. It is a file with holes, so only what is used costs.
const mostDisk, leastDisk = 64 << 30, 8 << 30

// newPlace makes the folder, as root on a new file system unless a parent is given: on a used ext4
// thousands of files deleted a moment ago make new ones several times slower.
func newPlace(parent, binary string) (_ *place, err error) {
	base, err := os.MkdirTemp(parent, "pfmount-bench-")
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(base); err == nil {
		base = real
	}
	p := &place{name: "root", dir: base, base: base}
	if os.Geteuid() != 0 {
		p.name = "an ordinary user"
	} else if parent == "" {
		if err := p.ownDisk(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: no disk of its own, so on %s: %v\n", base, err)
		}
	}
	p.binary = p.path("pfmount")
	err = errors.Join(os.Chmod(base, 0o755), os.Chmod(p.dir, 0o755), copyFile(p.binary, binary),
		p.environment(os.Getenv("HOME")))
	if err != nil {
		return nil, errors.Join(err, p.clean())
	}
	return p, nil
}

// ownDisk mounts a new ext4 below the folder and goes on there.
func (p *place) ownDisk() error {
	var st unix.Statfs_t
	if err := unix.Statfs(p.base, &st); err != nil {
		return err
	}
	size := min(int64(st.Bavail)*st.Bsize/10*9, mostDisk)
	if size < leastDisk {
		return fmt.Errorf("only %d bytes are free", size)
	}
	image, dir := filepath.Join(p.base, "disk.img"), filepath.Join(p.base, "disk")
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close(), os.Mkdir(dir, 0o755)); err != nil {
		return err
	}
	for _, argv := range [][]string{{"mkfs.ext4", "-q", "-F", "-m", "0", image},
		{"mount", "-o", "loop,noinit_itable", image, dir}} {
		if text, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", argv[0], err, text)
		}
	}
	p.dir = dir
	return nil
}

// environment is what commands see: folders of their own, and no setting of the caller's.
func (p *place) environment(home string) error {
	p.env = nil
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if name != "HOME" && !strings.HasPrefix(v, "XDG_") && !strings.HasPrefix(v, "PF_") &&
			!strings.HasPrefix(v, "OCI_") &&
			!strings.HasPrefix(v, "RESTIC_") && !strings.HasPrefix(v, "RCLONE_") {
			p.env = append(p.env, v)
		}
	}
	p.env = append(p.env, "HOME="+home, "XDG_CACHE_HOME="+p.path("cache"),
		"XDG_STATE_HOME="+p.path("state"), "XDG_RUNTIME_DIR="+p.path("run"),
		"LC_ALL=C", "RESTIC_PASSWORD=bench")
	return p.mkdir("run")
}

// as is a folder for another user's mounts and caches inside this place.
func (p *place) as(name string) (*place, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	other := *p
	other.name, other.dir = name, p.path("as-"+name)
	other.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if err := p.mkdir("as-" + name); err != nil {
		return nil, err
	}
	if err := os.Chown(other.dir, int(uid), int(gid)); err != nil {
		return nil, err
	}
	return &other, other.environment(other.dir)
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// mkdir makes a folder of the place's user, unless it is there.
func (p *place) mkdir(name string) error {
	if err := os.MkdirAll(p.path(name), 0o700); err != nil || p.cred == nil {
		return err
	}
	return os.Chown(p.path(name), int(p.cred.Uid), int(p.cred.Gid))
}

// longest is how long a command may take.
const longest = 5 * time.Minute

// command prepares a command of the place's user in a group of its own: a Ctrl-C reaches it through
// ctx only, and all of a pipe ends.
func (p *place) command(ctx context.Context, argv, env []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(append([]string{}, p.env...), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.cred}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// run runs a command in dir and gives what it printed; anything on stderr is a failure, since a pipe
// hides the exit codes of its first parts.
func (p *place) run(ctx context.Context, dir, name string, args ...string) (string, error) {
	limited, stop := context.WithTimeout(ctx, longest)
	defer stop()
	cmd := p.command(limited, append([]string{name}, args...), nil)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	said := strings.TrimSpace(stderr.String())
	if limited.Err() != nil {
		err = fmt.Errorf("not done within %v", longest)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, said)
	}
	if said != "" && name != p.binary { // pfmount warns on stderr
		return "", fmt.Errorf("%s %s: %s", filepath.Base(name), strings.Join(args, " "), said)
	}
	return stdout.String(), nil
}

func copyFile(to, from string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
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
