package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
)

// TestOptions: options before, between and behind the arguments, and as -o lists, mean the same.
func TestOptions(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"before": {"--subdir", "world/fs", "IMAGE", "DIR"}, "equals": {"--subdir=world/fs", "IMAGE", "DIR"},
		"between": {"IMAGE", "--subdir", "world/fs", "DIR"}, "behind": {"IMAGE", "DIR", "--subdir=world/fs"},
		"-o": {"-o", "subdir=world/fs", "IMAGE", "DIR"}, "-oX": {"-osubdir=world/fs", "IMAGE", "DIR"},
		"-o behind": {"IMAGE", "DIR", "-o", "ro,subdir=world/fs,nodev"},
		"generic": {"IMAGE", "DIR", "-o",
			"rw,_netdev,nofail,noauto,user,x-systemd.automount,nodev,nosuid,subdir=world/fs"},
		"underscores": {"IMAGE", "DIR", "-o", "cache_size=1GiB,subdir=world/fs,stall_timeout=10s"},
		"twice":       {"-o", "cache-size=1GiB", "IMAGE", "DIR", "-o", "subdir=world/fs"},
		"dashes":      {"--subdir", "world/fs", "--", "IMAGE", "DIR"},
		"named":       {"mount", "IMAGE", "DIR", "--subdir", "world/fs/"},
		"slashes":     {"IMAGE", "DIR", "--subdir", "/world/fs"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
			e.Run(filled(args, ref, dir)...).Want(t, 0)
			m := e.Mounted(ref, dir)
			m.Compare("", harness.Want(t, "minimal"))
			m.Unmount()
		})
	}
}

// filled puts reference and folder in place of IMAGE and DIR.
func filled(args []string, ref, dir string) []string {
	var full []string
	for _, a := range args {
		full = append(full, strings.NewReplacer("IMAGE", ref, "DIR", dir).Replace(a))
	}
	return full
}

// TestBadOptions: what is typed wrong is named, exits 1 and mounts nothing.
func TestBadOptions(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
	for want, args := range map[string][]string{
		"bogus":            {"IMAGE", "DIR", "--bogus"},
		"sugar":            {"IMAGE", "DIR", "-o", "ro,sugar"},
		"honey=3":          {"-o", "honey=3", "IMAGE", "DIR"},
		"subdir":           {"IMAGE", "DIR", "-o", "subdir"},
		"allow-other":      {"IMAGE", "DIR", "-o", "allow_other=yes"},
		"needs a value":    {"IMAGE", "DIR", "--subdir"},
		"-o needs":         {"IMAGE", "DIR", "-o"},
		"third":            {"IMAGE", "DIR", "third"},
		"MOUNTPOINT":       {"IMAGE"},
		"lots":             {"IMAGE", "DIR", "--cache-size", "lots"},
		"cache-min-free":   {"IMAGE", "DIR", "--cache-min-free", "120"},
		"cache-verify":     {"IMAGE", "DIR", "--cache-verify", "now"},
		"max-connections":  {"IMAGE", "DIR", "--max-connections", "0"},
		"stall-timeout":    {"IMAGE", "DIR", "--stall-timeout", "-1s"},
		"soon":             {"IMAGE", "DIR", "--stall-timeout", "soon"},
		"uid":              {"IMAGE", "DIR", "--uid", "-5"},
		"world/nothing":    {"IMAGE", "DIR", "--subdir", "world/nothing"},
		"not a folder":     {"IMAGE", "DIR", "--subdir", "world/env.json"},
		"key file":         {"IMAGE", "DIR", "--key-file", "/none"},
		"no IMAGE":         {"mount"},
		"pfmount [options": {},
	} {
		r := e.Run(filled(args, ref, dir)...).Want(t, 1, want)
		if r.Stdout != "" {
			t.Errorf("%q: an error on stdout: %v", args, r)
		}
		if strings.Count(r.Stderr, "\n") > 5 && len(args) > 0 {
			t.Errorf("%q: a long error: %v", args, r)
		}
		if lines := harness.MountLines(t, dir); lines != nil {
			t.Fatalf("%q: mounted: %v", args, lines)
		}
	}
}

// commands are all the commands.
var commands = []string{"", "mount", "umount", "status", "inspect", "ls", "cat", "warm", "verify",
	"cache", "cache info", "cache prune", "cache verify", "cache clear"}

// TestHelp: every command explains itself, with an example and what it cannot do.
func TestHelp(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	for _, c := range commands {
		var first string
		for _, form := range [][]string{{"--help"}, {"-h"}, {"x", "--help"}} {
			r := e.Run(append(strings.Fields(c), form...)...).Want(t, 0)
			for _, want := range []string{"usage", "example", "limitations",
				"pfmount " + strings.TrimPrefix(c, "mount")} {
				if !strings.Contains(strings.ToLower(r.Stdout), want) {
					t.Errorf("pfmount %s %s does not tell %q: %v", c, form, want, r)
				}
			}
			if r.Stderr != "" {
				t.Errorf("help on stderr: %v", r)
			}
			if first == "" {
				first = r.Stdout
			}
			if c != "" && r.Stdout != first {
				t.Errorf("pfmount %s %s says something else than --help: %v", c, form, r)
			}
		}
	}
	for _, option := range []string{"--version", "-V"} {
		if r := e.Run(option).Want(t, 0); !strings.HasPrefix(r.Stdout, "pfmount") ||
			strings.Count(r.Stdout, "\n") != 1 {
			t.Errorf("%s: %v", option, r)
		}
	}
	if r := e.Run("help", "cat").Want(t, 0); !strings.Contains(r.Stdout, "pfmount cat") {
		t.Errorf("help cat: %v", r)
	}
}

// TestForeground: -f logs to stderr and stays; SIGINT and SIGTERM end it and leave nothing, and so does
// an unmount.
func TestForeground(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(e *harness.Env, p *harness.Process, dir string){
		"SIGINT":  func(_ *harness.Env, p *harness.Process, _ string) { p.Signal(syscall.SIGINT) },
		"SIGTERM": func(_ *harness.Env, p *harness.Process, _ string) { p.Signal(syscall.SIGTERM) },
		"umount":  func(e *harness.Env, _ *harness.Process, dir string) { e.Run("umount", dir) },
		"helper":  func(e *harness.Env, _ *harness.Process, dir string) { e.Sh(`fusermount3 -u "$1"`, dir) },
	} {
		t.Run(name, func(t *testing.T) {
			harness.Each(t, func(t *testing.T, e *harness.Env) {
				ref, dir := e.Push(harness.Fixture(t, "basic")), e.MountDir()
				p := e.Start(ref, dir, "-f")
				harness.Eventually(t, time.Minute, "the mount",
					func() bool { return strings.Contains(p.Stderr(), "msg=mounted") })
				m := e.Mounted(ref, dir)
				if m.PID != p.Cmd.Process.Pid {
					t.Errorf("process %d serves the mount, %d was started", m.PID, p.Cmd.Process.Pid)
				}
				m.Compare("world/fs", harness.Want(t, "basic"))
				if !p.Running() {
					t.Fatalf("it did not stay: %v", p.Wait(harness.Limit))
				}
				end(e, p, dir)
				if r := p.Wait(harness.Limit).Want(t, 0); r.Stdout != "" {
					t.Errorf("stdout: %v", r)
				}
				m.Gone()
			})
		})
	}
}
