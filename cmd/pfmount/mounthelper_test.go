package main

import (
	"errors"
	"slices"
	"testing"

	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
)

func TestArrangeHelper(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []string
		want []string
	}{
		{"as mount(8) calls it", []string{"reg/x:1", "/m", "-n", "-v", "-o", "rw,_netdev,subdir=a"},
			[]string{"mount", "--subdir=a", "--", "reg/x:1", "/m"}},
		{"-f is fake", []string{"reg/x:1", "/m", "-f"}, []string{"mount", "--fake", "--", "reg/x:1", "/m"}},
		{"letters together", []string{"reg/x:1", "/m", "-sfnv"},
			[]string{"mount", "--fake", "--", "reg/x:1", "/m"}},
		{"a value after letters", []string{"-noallow_other", "reg/x:1", "/m"},
			[]string{"mount", "--allow-other", "--", "reg/x:1", "/m"}},
		{"a type", []string{"reg/x:1", "/m", "-t", "fuse.pfmount"}, []string{"mount", "--", "reg/x:1", "/m"}},
		{"options twice", []string{"reg/x:1", "/m", "-o", "uid=5", "-o", "gid=6"},
			[]string{"mount", "--uid=5", "--gid=6", "--", "reg/x:1", "/m"}},
		{"-- ends options", []string{"-f", "--", "-x", "/m"}, []string{"mount", "--fake", "--", "-x", "/m"}},
		{"noexec holds", []string{"reg/x:1", "/m", "-o", "noexec,nosuid,nodev,user=me"},
			[]string{"mount", "--noexec", "--", "reg/x:1", "/m"}},
		{"comments", []string{"reg/x:1", "/m", "-o",
			"comment=x y,x-gvfs-show,X-mount.mkdir,x-systemd.idle-timeout=1min"},
			[]string{"mount", "--", "reg/x:1", "/m"}},
		{"help", []string{"reg/x:1", "/m", "-h"}, []string{"mount", "--help"}},
		{"version", []string{"-nV", "reg/x:1"}, []string{"--version"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := cmdline.ArrangeHelper(newApp(), append([]string{"mount.pfmount"}, tt.in...))
			if err != nil || !slices.Equal(got[1:], tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestArrangeHelperRefuses(t *testing.T) {
	for _, in := range [][]string{
		{"reg/x:1", "/m", "-o"},
		{"reg/x:1", "/m", "-N"},
		{"reg/x:1", "/m", "-o", "sugar"},
		{"reg/x:1", "/m", "-o", "f"},
		{"reg/x:1", "/m", "-o", "foreground"},
		{"reg/x:1", "/m", "-o", "fake"},
		{"reg/x:1", "/m", "-o", "remount"},
		{"reg/x:1", "/m", "-x"},
		{"reg/x:1", "/m", "--offline"},
	} {
		if got, err := cmdline.ArrangeHelper(newApp(),
			append([]string{"mount.pfmount"}, in...)); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%q: got %q, %v, want a usage error", in, got, err)
		}
	}
}

func TestHelperCode(t *testing.T) {
	for code, want := range map[int]int{exitOK: 0, exitUsage: 1, exitUnsupported: 32,
		exitIntegrity: 32, exitRegistry: 32, exitMount: 32, exitDisk: 32, exitInterrupted: 32} {
		if got := helperCode(code); got != want {
			t.Errorf("%d: got %d, want %d", code, got, want)
		}
	}
	for name, want := range map[string]bool{"/sbin/mount.pfmount": true, "mount.fuse.pfmount": true,
		"pfmount": false, "/usr/mount.d/pfmount": false} {
		if got := cmdline.IsMountHelper(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}
