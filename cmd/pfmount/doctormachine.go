package main

import (
	"context"
	"errors"
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

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fusefs"
)

// machine checks what a mount needs of this machine.
func (d *diagnosis) machine(c *cli.Context) {
	ctx := c.Context
	d.look(ctx, "pfmount", "", func(context.Context) (finding, error) {
		return finding{text: fmt.Sprintf("%s, %s, %s/%s, user %d", version, runtime.Version(), runtime.GOOS, runtime.GOARCH, os.Geteuid()),
			values: values{"go": runtime.Version(), "arch": runtime.GOARCH, "uid": os.Geteuid()}}, nil
	})
	d.look(ctx, "kernel", "", lookKernel)
	d.look(ctx, "fuse", "load it with modprobe fuse; a container needs --device /dev/fuse and the right to mount", lookFuse)
	d.look(ctx, "fusermount", "install the package fuse3", lookHelper)
	d.look(ctx, "allow_other", "", func(context.Context) (finding, error) {
		if err := fusefs.OthersAllowed(); err != nil {
			return finding{text: "only root may use --allow-other: " + err.Error(), values: values{"allowed": false}}, nil
		}
		return finding{text: "users may use --allow-other", values: values{"allowed": true}}, nil
	})
	d.look(ctx, "namespace", "", lookNamespace)
	d.look(ctx, "cache", "choose another folder with --cache-dir", func(context.Context) (finding, error) { return lookCache(c) })
	d.look(ctx, "logs", "choose another file with --log-file", func(context.Context) (finding, error) {
		name, err := logPath(c, "/")
		if err != nil {
			return finding{}, err
		}
		return lookFolder(filepath.Dir(name))
	})
	d.look(ctx, "sockets", "set XDG_RUNTIME_DIR to a folder of this user", func(context.Context) (finding, error) {
		return lookFolder(stateDir(os.Geteuid()))
	})
	d.look(ctx, "mounts", "", lookMounts)
	d.look(ctx, "environment", "", lookEnvironment)
	d.look(ctx, "proxies", "mend the variable, or unset it", func(context.Context) (finding, error) {
		found, err := registry.Proxies(os.Getenv)
		list := []string{}
		for _, name := range slices.Sorted(maps.Keys(found)) {
			list = append(list, name+" "+found[name])
		}
		return finding{text: orNone(list), values: values{"proxies": found}}, err
	})
	d.look(ctx, "hosts", "", func(context.Context) (finding, error) {
		dir := absolute(c.String("hosts-dir"))
		found, _ := filepath.Glob(filepath.Join(dir, "*", "hosts.toml")) // a folder that cannot be read is none
		for i := range found {
			found[i] = filepath.Base(filepath.Dir(found[i]))
		}
		return finding{text: dir + ": " + orNone(found), values: values{"dir": dir, "hosts_toml": append([]string{}, found...)}}, nil
	})
}

func lookKernel(context.Context) (finding, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding{}, os.NewSyscallError("uname", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	f := finding{text: release, values: values{"release": release}}
	var st unix.Statfs_t
	settable := os.Geteuid() == 0 && unix.Statfs("/sys/class/bdi", &st) == nil && st.Flags&unix.ST_RDONLY == 0
	f.values["read_ahead_settable"] = settable
	if !settable {
		f.text += "; read-ahead stays at the kernel's 128 KiB, which root could raise"
	}
	return f, nil
}

func lookFuse(context.Context) (finding, error) {
	const device = "/dev/fuse"
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return finding{}, mountf("%w", err)
	}
	f.Close()
	found := finding{text: device + " can be read and written", values: values{"device": device}}
	major, minor, err := fusefs.Protocol()
	switch {
	case err == nil:
		found.values["protocol"] = fmt.Sprintf("%d.%d", major, minor)
		found.text += fmt.Sprintf(", protocol %d.%d", major, minor)
	case errors.Is(err, unix.EPERM) && os.Geteuid() != 0:
		found.text += ", protocol known to root only"
	case errors.Is(err, unix.EPERM):
		found.text, found.warn = found.text+", but this root may not mount", "a container needs --cap-add SYS_ADMIN, or a user namespace of its own"
	default:
		found.text += ", protocol not known: " + err.Error()
	}
	return found, nil
}

func lookHelper(ctx context.Context) (finding, error) {
	path, err := fusefs.Helper()
	switch {
	case err != nil && os.Geteuid() == 0:
		return finding{text: "none, which only ordinary users need", values: values{"path": ""}}, nil
	case err != nil:
		return finding{}, mountf("%w", err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return finding{}, mountf("%w", err)
	}
	out, err := exec.CommandContext(ctx, path, "-V").Output() // "fusermount3 version: 3.14.0"
	said := strings.TrimSpace(string(out[:min(len(out), 100)]))
	if err != nil {
		said = "does not tell its version"
	}
	setuid := fi.Mode()&fs.ModeSetuid != 0
	f := finding{text: path + ", " + said, values: values{"path": path, "version": said, "setuid": setuid}}
	if !setuid {
		f.text, f.warn = f.text+", not set-user-id root", "ordinary users cannot mount by it: chmod u+s "+path
	}
	return f, nil
}

func lookNamespace(context.Context) (finding, error) {
	v, list := values{"container": false, "user_namespace": false}, []string{}
	own, _ := os.Readlink("/proc/self/ns/mnt")
	first, err := os.Readlink("/proc/1/ns/mnt") // root's only
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Lstat(mark); err == nil {
			v["container"] = true
			list = append(list, "a container ("+mark+")")
		}
	}
	if m, err := os.ReadFile("/proc/self/uid_map"); err == nil && !slices.Equal(strings.Fields(string(m)), []string{"0", "0", "4294967295"}) {
		v["user_namespace"] = true
		list = append(list, "a user namespace")
	}
	f := finding{values: v}
	if err == nil && own != first {
		list = append(list, "a mount namespace other than that of process 1")
		f.warn = "mounts made here are seen only here"
	}
	if len(list) == 0 {
		list = []string{"no container that shows"}
	}
	f.text = strings.Join(list, ", ")
	return f, nil
}

// lookCache looks at the folder of the cache, or at where it would be made, and makes nothing.
func lookCache(c *cli.Context) (finding, error) {
	dir, err := cacheDir(c)
	if err != nil {
		return finding{}, err
	}
	limit, err := parseSize(c, "cache-size")
	if err != nil {
		return finding{}, err
	}
	f, err := lookFolder(dir)
	if err != nil {
		return f, err
	}
	real := existing(dir)
	info, err := cache.Place(real)
	if err != nil {
		return f, err
	}
	used, blobs, all := usedBytes(dir)
	f.values["file_system"], f.values["free_bytes"], f.values["limit_bytes"] = info.FileSystem, info.Free, limit
	f.values["used_bytes"], f.values["blobs"], f.values["used_complete"] = used, blobs, all
	f.text += fmt.Sprintf("; %s, %s free; %s in %d blobs of %s", info.FileSystem, humanize.IBytes(uint64(info.Free)),
		humanize.IBytes(uint64(used)), blobs, humanize.IBytes(uint64(limit)))
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

// tryLock says whether flock works in a folder; somebody else's lock shows that it does.
func tryLock(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil && err != unix.EWOULDBLOCK {
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

// lookFolder says whose a folder is and whether this user can write there; where it does not exist yet, whether it can be
// made.
func lookFolder(dir string) (finding, error) {
	f := finding{text: dir, values: values{"dir": dir, "exists": false}}
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
		return f, &os.PathError{Op: "use", Path: at, Err: fmt.Errorf("it belongs to user %d: %w", owner, unix.EPERM)}
	}
	return f, nil
}

func lookMounts(ctx context.Context) (finding, error) {
	states, err := mountStates(ctx, "", false)
	if err != nil {
		return finding{}, err
	}
	list, stale := []values{}, []string{}
	for _, s := range states {
		list = append(list, values{"mountpoint": s.Mountpoint, "image": s.Image, "pid": s.PID, "stale": s.Stale})
		if s.Stale {
			stale = append(stale, shellQuote(s.Mountpoint))
		}
	}
	f := finding{text: fmt.Sprintf("%d, %d of them stale", len(states), len(stale)), values: values{"mounts": list}}
	if len(stale) > 0 {
		f.warn = "their processes died: pfmount umount " + strings.Join(stale[:min(len(stale), 8)], " ")
	}
	return f, nil
}

// relevantVars are what pfmount heeds in its environment. Many hold secrets, so of none more is told than that it is set.
var relevantVars = []string{
	"HOME", "PF_STORE", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME",
	"DOCKER_CONFIG", "OCI_BEARER", "OCI_PASSWORD", "OCI_USERNAME", "PF_FILE_REG_SIGN_KEY", "PF_OCI_REG_SIGN_KEY",
	"REGISTRY_AUTH_FILE", "SSL_CERT_DIR", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy",
}

func lookEnvironment(context.Context) (finding, error) {
	f, list := finding{values: values{}}, []string{}
	for _, name := range relevantVars {
		f.values[name] = "not set"
		if os.Getenv(name) != "" {
			f.values[name] = "set"
			list = append(list, name)
		}
	}
	f.text = "set: " + orNone(list)
	return f, nil
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
