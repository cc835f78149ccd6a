package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
)

// completed returns what the command line completes to, for its last word.
func completed(t *testing.T, words ...string) string {
	t.Helper()
	app := newApp()
	var out, errs bytes.Buffer
	app.Writer, app.ErrWriter = &out, &errs
	args := append(append([]string{"pfmount"}, words...), "--generate-bash-completion")
	line, ok := cmdline.Complete(app, args, places)
	if !ok {
		t.Fatalf("%q asks for no completions", args)
	}
	// A command that ran would fail: no registry is there.
	if err := app.RunContext(context.Background(), line); err != nil || errs.Len() > 0 {
		t.Errorf("%q: %v, %s", words, err, &errs)
	}
	return strings.Join(strings.Fields(out.String()), " ")
}

func TestComplete(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", dir)
	layout := filepath.Join(dir, "lay")
	index := `{"manifests":[{"digest":"sha256:` + strings.Repeat("0", 64) + `","size":1,
		"mediaType":"application/vnd.oci.image.manifest.v1+json",
		"annotations":{"org.opencontainers.image.ref.name":"v1"}},
		{"digest":"sha256:` + strings.Repeat("1", 64) + `","size":1,
		"mediaType":"application/vnd.oci.image.manifest.v1+json",
		"annotations":{"org.opencontainers.image.ref.name":"v2\n$(x)"}}]}`
	if err := os.Mkdir(layout, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(layout, "index.json"), []byte(index), 0o600); err != nil {
		t.Fatal(err)
	}
	remember(t, filepath.Join(dir, "pfmount"), "reg.example/team/sess:v1")
	remember(t, filepath.Join(dir, "other"), "reg.example/team/other:v1")
	for _, tt := range []struct{ words, want string }{
		{"um", "umount"},
		{"c", "cat cache completion"},
		{"oci", "oci-layout:"},
		{"reg", "reg.example/team/sess:v1"},
		{"--cache-dir|" + dir + "/other|reg", "reg.example/team/other:v1"},
		{"cat|reg", "reg.example/team/sess:v1"},
		{"cat|reg.example/x|", ""},
		{"cat|--|reg.example/x|", ""},
		{"cat|--key-file|--|reg.example/x", ""},
		{"cat|reg.example/x|--help|x", ""},
		{"cat|reg.example/x|--max-connections|many|x", ""},
		{"cache|", "info prune verify clear"},
		{"cache|pr", "prune"},
		{"cache|prune|--t", "--to"},
		{"cache|prune|", ""},
		{"cat|--null", ""},
		{"ls|--nu", "--null"},
		{"--re", "--require-key"},
		{"-V", "-V"},
		{"--cache-verify|a", "always"},
		{"--cache-verify=a", "--cache-verify=always"},
		{"push|--level|be", "better best"},
		{"push|", ""},
		{"push|lay|oc", "oci-layout:"},
		{"pull|reg/x|st", "store:"},
		{"oci-layout:" + layout, ""},
		{"oci-layout:" + layout + ":", "oci-layout:" + layout + ":v1"},
		{"-o|subd", "subdir="},
		{"-o|noexec,allow", "noexec,allow-other"},
		{"-o|subdir=x,off", "subdir=x,offline"},
		{"-oallow", "-oallow-other"},
		{"completion|", "bash zsh fish"},
		{"umount|/none", ""},
		{"umount|/mnt|", ""},
	} {
		if got := completed(t, strings.Split(tt.words, "|")...); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.words, got, tt.want)
		}
	}
}

// remember records a reference in the cache in dir, as opening its image does.
func remember(t *testing.T, dir, reference string) {
	t.Helper()
	store, err := cache.New(cache.Options{Dir: dir, Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	data, err := json.Marshal(map[string]string{"reference": reference})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.SetRecord(reference, data); err != nil {
		t.Fatal(err)
	}
	if err := store.SetRecord("order", []byte("no JSON")); err != nil {
		t.Fatal(err)
	}
}

// TestCommandsExplained holds that every command explains itself, with an example and what it
// cannot do, and that the manual page and the completions name it and each of its options.
func TestCommandsExplained(t *testing.T) {
	page, err := manual()
	if err != nil {
		t.Fatal(err)
	}
	page = strings.ReplaceAll(page, `\-`, "-")
	var check func(c *cli.Command, path ...string)
	check = func(c *cli.Command, path ...string) {
		example := regexp.MustCompile(`\n\nExample: (pfmount|.*\(pfmount)`)
		if c.Usage == "" || !example.MatchString(c.Description) ||
			!strings.Contains(c.Description, "\n\nLimitations: ") {
			t.Errorf("%q: usage %q, description %q", path, c.Usage, c.Description)
		}
		if !regexp.MustCompile(`(?m)^\.S[HS] `+c.Name+`\b`).MatchString(page) && !c.Hidden {
			t.Errorf("the manual page has no %q", path)
		}
		for _, f := range c.VisibleFlags() {
			doc := f.(cli.DocGenerationFlag)
			if doc.TakesValue() && strings.Count(doc.GetUsage(), "`") != 2 || doc.GetUsage() == "" {
				t.Errorf("%q: %s: usage %q", path, f.Names()[0], doc.GetUsage())
			}
			option := "--" + f.Names()[0]
			if !regexp.MustCompile(option + `\b`).MatchString(page) {
				t.Errorf("the manual page has no %s", option)
			}
			if got := completed(t, append(path, option)...); !strings.HasPrefix(got, option) {
				t.Errorf("%q: %s completes to %q", path, option, got)
			}
		}
		for _, s := range c.Subcommands {
			check(s, append(path, s.Name)...)
		}
	}
	for _, c := range newApp().Commands {
		check(c, c.Name)
	}
}
