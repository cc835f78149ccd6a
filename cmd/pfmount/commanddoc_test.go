package main

import (
	"bytes"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestDescribe holds that every command explains itself, with an example and what it cannot do.
func TestDescribe(t *testing.T) {
	docs := describe(newApp())
	names := make(map[string]bool)
	for _, d := range docs {
		names[d.Name] = true
		if d.Usage == "" || d.Text == "" || !strings.HasPrefix(d.Example, "pfmount") && !strings.Contains(d.Example, "(pfmount") || d.Limitations == "" {
			t.Errorf("pfmount %s: usage %q, text %q, example %q, limitations %q", d.Name, d.Usage, d.Text, d.Example, d.Limitations)
		}
		for _, o := range d.Options {
			if o.Usage == "" || strings.ContainsAny(o.Usage+o.Default, "`\"") {
				t.Errorf("pfmount %s %v: usage %q, default %q", d.Name, o.Names, o.Usage, o.Default)
			}
			if o.Value == "VALUE" {
				t.Errorf("pfmount %s %v: its value has no name", d.Name, o.Names)
			}
		}
	}
	for _, c := range newApp().Commands {
		if names[c.Name] == c.Hidden {
			t.Errorf("command %s: hidden %v, described %v", c.Name, c.Hidden, names[c.Name])
		}
	}
}

// TestHelpNames holds that the manual page and every completion name each command and each option of its help.
func TestHelpNames(t *testing.T) {
	texts := make(map[string]string)
	for _, name := range []string{"pfmount.1", "pfmount.bash", "pfmount.zsh", "pfmount.fish"} {
		var b bytes.Buffer
		if err := render(&b, name, describe(newApp())); err != nil {
			t.Fatal(err)
		}
		texts[name] = strings.ReplaceAll(b.String(), `\-`, "-")
	}
	var check func(c *cli.Command)
	check = func(c *cli.Command) {
		words := []string{c.Name}
		if c.Hidden {
			words = nil
		}
		for _, f := range c.VisibleFlags() {
			words = append(words, f.Names()[0])
		}
		for name, text := range texts {
			for _, word := range words {
				if !regexp.MustCompile(`(^|[ '\-])` + word + `\b`).MatchString(text) {
					t.Errorf("%s does not name %s of %s", name, word, c.Name)
				}
			}
		}
		for _, s := range c.Subcommands {
			check(s)
		}
	}
	for _, c := range newApp().Commands {
		if c.Name != "manpage" {
			check(c)
		}
	}
}

// TestBashCompletion drives the script's function, with words as bash splits them.
func TestBashCompletion(t *testing.T) {
	var script strings.Builder
	if err := render(&script, "pfmount.bash", describe(newApp())); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	const drive = `
set -u; cd "$1"; shift
mkdir -p lay 'a b'; : >team.key
compopt() { :; }
COMP_WORDS=(pfmount "$@") COMP_CWORD=$#
_pfmount
((${#COMPREPLY[@]})) && printf '%s\n' "${COMPREPLY[@]}"
exit 0`
	for _, tt := range []struct{ words, want string }{
		{"um", "umount"},
		{"c", "cat cache completion"},
		{"oci", "oci-layout:"},
		{"cache|", "info prune verify clear"},
		{"cache|pr", "prune"},
		{"cache|prune|--t", "--to"},
		{"cat|--null", ""},
		{"ls|--nu", "--null"},
		{"--su", "--subdir"},
		{"--re", "--require-key"},
		{"-V", "-V"},
		{"--cache-dir|la", "lay"},
		{"--cache-dir|=|la", "lay"},
		{"ls|--key-file|te", "team.key"},
		{"--cache-verify|a", "always"},
		{"push|--level|be", "better best"},
		{"reg|:|5000/x|la", "lay"},
		{"--uid|5|reg/x|la", "lay"},
		{"reg/x|-f|--uid|=|5|a", "a b"},
		{"oci-layout|:|la", "lay"},
		{"oci-layout|:|lay|:|v1|la", "lay"},
		{"file|:|///proc/sel", "///proc/self"},
		{"reg|:|5", ""},
		{"cat|reg/x|la", ""},
		{"push|la", "lay"},
		{"push|lay|oc", "oci-layout:"},
		{"pull|reg/x|st", "store:"},
		{"-o|subd", "subdir="},
		{"-o|noexec,allow", "noexec,allow-other"},
		{"-o|subdir|=|x,off", "x,offline"},
		{"-oallow", "-oallow-other"},
		{"completion|", "bash zsh fish"},
		{"umount|/none", ""},
	} {
		args := append([]string{"-c", script.String() + drive, "bash", dir}, strings.Split(tt.words, "|")...)
		cmd := exec.Command("bash", args...)
		out, err := cmd.CombinedOutput()
		if got := strings.Join(strings.Split(strings.TrimSpace(string(out)), "\n"), " "); err != nil || got != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.words, got, err, tt.want)
		}
	}
}

func TestRoff(t *testing.T) {
	for in, want := range map[string]string{
		"a-b": `a\-b`, ".x": `\&.x`, "'x": `\&'x`, `\n`: `\en`, "a\n  .b": "a\n\\&.b",
	} {
		if got := roff(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
