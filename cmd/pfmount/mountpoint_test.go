package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHoldFree(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	link, dangling := filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "dangling")
	if err := errors.Join(os.Symlink(empty, link), os.Symlink("none", dangling)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ dir, want string }{
		{empty, ""},
		{dir, `not empty (it holds "file")`},
		{file, "not a folder"},
		{filepath.Join(dir, "absent"), "no such file"},
		{dangling, "no such file"},
		{link, "moved meanwhile"}, // the caller has resolved links before
	} {
		at, err := holdFree(tt.dir)
		if err == nil {
			at.Close()
		}
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
