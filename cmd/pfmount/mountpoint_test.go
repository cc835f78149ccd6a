package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseMountInfo(t *testing.T) {
	for _, tt := range []struct {
		line string
		want mountInfo
		ok   bool
	}{
		{`71 1 0:52 / /mnt/a\040b\012c ro,nosuid,nodev - fuse.pfmount ghcr.io/o/r:t ro,user_id=1000,group_id=0`,
			mountInfo{"/mnt/a b\nc", "fuse.pfmount", "ghcr.io/o/r:t", 1000, 0, "0:52"}, true},
		{`22 1 0:20 / /proc rw shared:5 - proc proc rw`, mountInfo{"/proc", "proc", "proc", -1, -1, "0:20"}, true},
		{`22 1 0:20 / /p - fuse.sshfs h:\134x rw`, mountInfo{"/p", "fuse.sshfs", `h:\x`, -1, -1, "0:20"}, true},
		{`nonsense`, mountInfo{}, false},
		{``, mountInfo{}, false},
	} {
		if got, ok := parseMountInfo(tt.line); ok != tt.ok || got != tt.want {
			t.Errorf("%q: got %+v, %v, want %+v, %v", tt.line, got, ok, tt.want, tt.ok)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, tt := range []struct {
		path, dir string
		want      bool
	}{
		{"/a/b", "/a", true}, {"/a", "/a", true}, {"/a", "/a/b", false}, {"/ab", "/a", false},
		{"/a/..b", "/a", true}, {"/", "/a", false}, {"/x", "/", true},
	} {
		if got := within(tt.path, tt.dir); got != tt.want {
			t.Errorf("within(%q, %q): got %v", tt.path, tt.dir, got)
		}
	}
}

func TestCheckFree(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	for _, tt := range []struct{ dir, want string }{
		{empty, ""},
		{dir, `not empty (it holds "file")`},
		{file, "not a folder"},
		{filepath.Join(dir, "absent"), "no such file"},
	} {
		err := checkFree(tt.dir, nil)
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, errMount) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.dir, err, tt.want)
		}
	}
}

func TestResolveMountpoint(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	target, err := filepath.EvalSymlinks(link)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for in, want := range map[string]string{"link": target, "./absent": filepath.Join(dir, "absent"), "/": "/"} {
		if got, err := resolveMountpoint(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	if _, err := resolveMountpoint(""); !errors.Is(err, errUsage) {
		t.Errorf("empty: got %v", err)
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"/mnt/a-b.c": "/mnt/a-b.c", "/a b": "'/a b'", "/it's": `'/it'\''s'`, "/$x": "'/$x'"} {
		if got := shellQuote(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestParsePercent(t *testing.T) {
	for in, want := range map[string]float64{"5%": 0.05, "12.5": 0.125, "0": -1, "0%": -1} {
		if got, err := parsePercent(in); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "-1", "100", "x", "NaN"} {
		if got, err := parsePercent(in); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v, %v, want a usage error", in, got, err)
		}
	}
}
