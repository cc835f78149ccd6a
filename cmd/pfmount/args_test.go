package main

import (
	"errors"
	"slices"
	"testing"

	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
)

func TestArrange(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []string
		want []string
	}{
		{"mount is implied", []string{"reg/x:1", "/m"}, []string{"mount", "--", "reg/x:1", "/m"}},
		{"options after the positionals", []string{"reg/x:1", "/m", "-f", "--uid", "5"},
			[]string{"mount", "-f", "--uid", "5", "--", "reg/x:1", "/m"}},
		{"options first", []string{"-f", "--uid=5", "reg/x:1", "/m"},
			[]string{"mount", "-f", "--uid=5", "--", "reg/x:1", "/m"}},
		{"-o spreads", []string{"reg/x:1", "/m", "-o", "subdir=world/fs,allow_other"},
			[]string{"mount", "--subdir=world/fs", "--allow-other", "--", "reg/x:1", "/m"}},
		{"-o attached", []string{"-oallow_other", "reg/x:1", "/m"},
			[]string{"mount", "--allow-other", "--", "reg/x:1", "/m"}},
		{"an escaped comma stays", []string{"-o", `subdir=a\,b`, "reg/x:1", "/m"},
			[]string{"mount", "--subdir=a,b", "--", "reg/x:1", "/m"}},
		{"generic options change nothing", []string{"reg/x:1", "/m", "-o",
			"rw,dev,suid,_netdev,x-systemd.automount,noauto,user"}, []string{"mount", "--", "reg/x:1", "/m"}},
		{"-- ends options", []string{"--", "-weird", "/m"}, []string{"mount", "--", "-weird", "/m"}},
		{"a command", []string{"cat", "reg/x:1", "-v", "a b"}, []string{"cat", "-v", "--", "reg/x:1", "a b"}},
		{"a subcommand", []string{"cache", "prune", "--to", "1GiB"},
			[]string{"cache", "prune", "--to", "1GiB", "--"}},
		{"help wins", []string{"reg/x:1", "/m", "-h"}, []string{"mount", "--help", "--"}},
		{"help of a command", []string{"help", "cat"}, []string{"cat", "--help"}},
		{"version", []string{"-V"}, []string{"--version"}},
		{"version of a command", []string{"cat", "reg/x:1", "-v", "-V"}, []string{"--version", "--"}},
		{"a value that looks like an option", []string{"reg/x:1", "/m", "--subdir", "-V"},
			[]string{"mount", "--subdir", "-V", "--", "reg/x:1", "/m"}},
		{"a repeated option", []string{"--key-file", "a,b", "--key-file=c", "reg/x:1", "/m"},
			[]string{"mount", "--key-file", "a,b", "--key-file=c", "--", "reg/x:1", "/m"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := cmdline.Arrange(newApp(), append([]string{"pfmount"}, tt.in...))
			if err != nil || !slices.Equal(got[1:], tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestArrangeRefuses(t *testing.T) {
	for _, in := range [][]string{
		{"reg/x:1", "/m", "-o"},
		{"reg/x:1", "/m", "-o", "nonsense"},
		{"reg/x:1", "/m", "-o", "subdir"},
		{"reg/x:1", "/m", "-o", "allow_other=1"},
		{"reg/x:1", "/m", "--uid"},
	} {
		if got, err := cmdline.Arrange(newApp(),
			append([]string{"pfmount"}, in...)); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%q: got %q, %v, want a usage error", in, got, err)
		}
	}
}

// FuzzArrange holds that no command line panics or loses an argument after --.
func FuzzArrange(f *testing.F) {
	f.Add("reg/x:1", "-o", `a\,b,c=d`)
	f.Add("cache", "info", "--json")
	f.Add("help", "-h", "--")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		got, err := cmdline.Arrange(newApp(), []string{"pfmount", a, b, c})
		if err == nil && len(got) == 0 {
			t.Error("nothing left")
		}
	})
}
