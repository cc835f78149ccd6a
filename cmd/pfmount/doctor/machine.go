package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/pfmount/pfmount/fetch/registry"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk"
	"github.com/pfmount/pfmount/cmd/pfmount/daemon"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

// machine checks what a mount needs of this machine.
func (d *Diagnosis) machine(ctx context.Context) {
	d.look(ctx, "pfmount", "", func(context.Context) (finding, error) {
		text := fmt.Sprintf("%s, %s, %s/%s, user %d",
			d.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH, os.Geteuid())
		v := Values{"go": runtime.Version(), "arch": runtime.GOARCH, "uid": os.Geteuid()}
		return finding{text: text, values: v}, nil
	})
	d.look(ctx, "kernel", "", lookKernel)
	d.look(ctx, "fuse", "a container needs --device /dev/fuse and the right to mount", lookFuse)
	d.look(ctx, "fusermount", "install the package fuse3", lookHelper)
	d.look(ctx, "allow_other", "", lookAllowOther)
	d.look(ctx, "cache", "choose another folder with --cache-dir", d.lookCache)
	d.look(ctx, "mounts", "", lookMounts)
	d.look(ctx, "environment", "", lookEnvironment)
	d.look(ctx, "proxies", "mend the variable, or unset it", lookProxies)
	d.look(ctx, "hosts", "", d.lookHosts)
}

func lookKernel(context.Context) (finding, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding{}, os.NewSyscallError("uname", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	f := finding{text: release, values: Values{"release": release}}
	var st unix.Statfs_t
	settable := os.Geteuid() == 0 && unix.Statfs("/sys/class/bdi", &st) == nil &&
		st.Flags&unix.ST_RDONLY == 0
	f.values["read_ahead_settable"] = settable
	if !settable {
		f.text += "; read-ahead stays at the kernel's 128 KiB, which root could raise"
	}
	return f, nil
}

func lookFuse(context.Context) (finding, error) {
	if err := mounts.Device(); err != nil {
		return finding{}, err
	}
	found := finding{text: "/dev/fuse can be read and written"}
	if os.Geteuid() == 0 && !mayMount() {
		found.text += ", but this root may not mount"
		found.warn = "a container needs --cap-add SYS_ADMIN, or a user namespace of its own"
	}
	return found, nil
}

// mayMount reports whether this process has the right to mount, CAP_SYS_ADMIN.
func mayMount() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // the capabilities from 0 and from 32 on
	err := unix.Capget(&header, &data[0])
	return err != nil || data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

func lookHelper(ctx context.Context) (finding, error) {
	path, err := mounts.Helper()
	switch {
	case err != nil && os.Geteuid() == 0:
		f := finding{text: "none, which only ordinary users need", values: Values{"path": ""}}
		return f, nil
	case err != nil:
		return finding{}, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return finding{}, fmt.Errorf("%w: %w", mounts.ErrHelper, err)
	}
	out, err := exec.CommandContext(ctx, path, "-V").Output() // "fusermount3 version: 3.14.0"
	said := strings.TrimSpace(string(out[:min(len(out), 100)]))
	if err != nil {
		said = "does not tell its version"
	}
	setuid := fi.Mode()&fs.ModeSetuid != 0
	f := finding{text: path + ", " + said}
	f.values = Values{"path": path, "version": said, "setuid": setuid}
	if !setuid {
		f.text += ", not set-user-id root"
		f.warn = "ordinary users cannot mount by it: chmod u+s " + path
	}
	return f, nil
}

func lookAllowOther(context.Context) (finding, error) {
	if err := mounts.OthersAllowed(); err != nil {
		text := "only root may use --allow-other: " + err.Error()
		return finding{text: text, values: Values{"allowed": false}}, nil
	}
	return finding{text: "users may use --allow-other", values: Values{"allowed": true}}, nil
}

func lookProxies(context.Context) (finding, error) {
	found, err := registry.Proxies(os.Getenv)
	list := []string{}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		list = append(list, name+" "+found[name])
	}
	return finding{text: orNone(list), values: Values{"proxies": found}}, err
}

func (d *Diagnosis) lookHosts(context.Context) (finding, error) {
	dir := d.cfg.HostsDir
	// A directory that cannot be read is none.
	found, _ := filepath.Glob(filepath.Join(dir, "*", "hosts.toml"))
	for i := range found {
		found[i] = filepath.Base(filepath.Dir(found[i]))
	}
	v := Values{"dir": dir, "hosts_toml": append([]string{}, found...)}
	return finding{text: dir + ": " + orNone(found), values: v}, nil
}

// lookCache looks at the folder of the cache, or at where it would be made, and makes nothing.
func (d *Diagnosis) lookCache(context.Context) (finding, error) {
	dir, limit, err := d.cfg.Cache()
	if err != nil {
		return finding{}, err
	}
	f, err := lookFolder(dir)
	if err != nil {
		return f, err
	}
	real := existing(dir)
	info, err := disk.Place(real)
	if err != nil {
		return f, err
	}
	used, blobs, all := usedBytes(dir)
	maps.Copy(f.values, Values{
		"file_system": info.FileSystem, "free_bytes": info.Free, "limit_bytes": limit,
		"used_bytes": used, "blobs": blobs, "used_complete": all,
	})
	size := func(n int64) string { return humanize.IBytes(uint64(n)) }
	f.text += fmt.Sprintf("; %s, %s free; %s in %d blobs of %s",
		info.FileSystem, size(int64(info.Free)), size(used), blobs, size(limit))
	if !all {
		f.text += " or more"
	}
	if info.Warning != "" {
		f.warn = info.Warning
	}
	return f, tryLock(real)
}

// existing is path, or the folder above it that exists.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// tryLock says whether flock works in a folder; another lock there shows that it does.
func tryLock(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if err != nil && err != unix.EWOULDBLOCK {
		return &os.PathError{Op: "flock", Path: dir, Err: err}
	}
	return nil
}

// scanEntries bounds the count of what the cache holds.
const scanEntries = 200_000

// usedBytes counts the cache's files.
func usedBytes(dir string) (used int64, blobs int, all bool) {
	seen := 0
	all = true
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if seen++; seen > scanEntries {
			all = false
			return fs.SkipAll
		}
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		if fi, err := e.Info(); err == nil {
			used += fi.Sys().(*syscall.Stat_t).Blocks * 512
			if len(e.Name()) == 64 {
				blobs++
			}
		}
		return nil
	})
	return used, blobs, all
}

// lookFolder says whose a folder is and whether this user can write there; where it does not exist
// yet, whether it can be made.
func lookFolder(dir string) (finding, error) {
	f := finding{text: dir, values: Values{"dir": dir, "exists": false}}
	at := existing(dir)
	if at != dir {
		f.text += " (not made yet)"
	}
	fi, err := os.Stat(at)
	if err != nil {
		return f, err
	}
	if !fi.IsDir() {
		return f, &os.PathError{Op: "mkdir", Path: at, Err: unix.ENOTDIR}
	}
	if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
		return f, &os.PathError{Op: "write", Path: at, Err: err}
	}
	if at != dir {
		return f, nil
	}
	owner := int(fi.Sys().(*syscall.Stat_t).Uid)
	mode := fmt.Sprintf("%04o", fi.Mode().Perm())
	f.values["exists"], f.values["owner"], f.values["mode"] = true, owner, mode
	f.text += fmt.Sprintf(" (user %d, mode %s)", owner, mode)
	if owner != os.Geteuid() {
		err := fmt.Errorf("it belongs to user %d: %w", owner, unix.EPERM)
		return f, &os.PathError{Op: "use", Path: at, Err: err}
	}
	return f, nil
}

func lookMounts(ctx context.Context) (finding, error) {
	states, err := daemon.States(ctx, "", false)
	if err != nil {
		return finding{}, err
	}
	list, stale := []Values{}, []string{}
	for _, s := range states {
		list = append(list, Values{
			"mountpoint": s.Mountpoint, "image": s.Image, "pid": s.PID, "stale": s.Stale,
		})
		if s.Stale {
			stale = append(stale, safetext.Shell(s.Mountpoint))
		}
	}
	f := finding{text: fmt.Sprintf("%d, %d of them stale", len(states), len(stale))}
	f.values = Values{"mounts": list}
	if len(stale) > 0 {
		some := strings.Join(stale[:min(len(stale), 8)], " ")
		f.warn = "their processes died: pfmount umount " + some
	}
	return f, nil
}

// relevantVars are what pfmount heeds in its environment, beside proxies. Many hold secrets, so of
// none more is told than that it is set.
var relevantVars = []string{
	"HOME", "PF_STORE", "TMPDIR",
	"XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME",
	"DOCKER_CONFIG", "OCI_BEARER", "OCI_PASSWORD", "OCI_USERNAME", "REGISTRY_AUTH_FILE",
	"PF_FILE_REG_SIGN_KEY", "PF_OCI_REG_SIGN_KEY", "SSL_CERT_DIR", "SSL_CERT_FILE",
}

func lookEnvironment(context.Context) (finding, error) {
	set := slices.DeleteFunc(slices.Clone(relevantVars), func(name string) bool {
		return os.Getenv(name) == ""
	})
	return finding{text: "set: " + orNone(set), values: Values{"set": set}}, nil
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
