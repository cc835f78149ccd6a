package main

import (
	"context"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cache/disk"
	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the completion script of a shell: bash, zsh, fish",
		ArgsUsage: "SHELL",
		Description: `The script asks the pfmount in PATH, which completes commands, options, the
mount points of mounts, tags of image layouts and images that the cache knows.
make install puts it where the shell looks for it.

Example: source <(pfmount completion bash)

Limitations: names of images in registries are completed when they were used
before: nothing is asked of the network.`,
		Action: func(c *cli.Context) error {
			shell, err := cmdline.OneArg(c, "SHELL")
			if err != nil {
				return err
			}
			script, err := cmdline.Script(shell)
			if err != nil {
				return fault.Usagef("no completion for %q, only for bash, zsh, fish", shell)
			}
			_, err = c.App.Writer.Write(script)
			return err
		},
	}
}

// completeLimit is how long a shell may wait for completions, say where a folder does not answer.
const completeLimit = 2 * time.Second

// places have what may stand in the places of a command line: what this machine knows.
var places = map[string]cmdline.Candidates{
	"IMAGE":      completeImage,
	"DEST":       completeImage,
	"SOURCE":     completeSource,
	"MOUNTPOINT": completeMountpoint,
	"SHELL":      oneOf("bash", "zsh", "fish"),
	"WHAT":       oneOf(prefetchAuto, prefetchNone, prefetchAll),
	"WHEN":       oneOf("first", "always"),
	"LEVEL":      oneOf("fastest", "default", "better", "best"),
}

func oneOf(words ...string) cmdline.Candidates {
	return func(*cli.Context, string) []string { return words }
}

// completeMountpoint returns the mounts of pfmount; a new mount is made on any folder.
func completeMountpoint(c *cli.Context, _ string) (found []string) {
	if c.Command.Name == "mount" {
		return nil
	}
	table, err := mounts.Read()
	if err != nil {
		return nil
	}
	for _, m := range table {
		if m.Ours() {
			found = append(found, m.Point)
		}
	}
	return found
}

// completeSource is completeImage where a folder may be named as well.
func completeSource(c *cli.Context, word string) []string {
	if word == "" {
		return nil
	}
	return completeImage(c, word)
}

// completeImage returns the kinds of images and those in the cache, or the tags of a layout.
func completeImage(c *cli.Context, word string) []string {
	if layout, ok := strings.CutPrefix(word, "oci-layout:"); ok {
		return completeTag(c.Context, layout)
	}
	found := []string{"oci-layout:", "file:///", "store:"}
	dir, err := cacheDir(c)
	if err != nil {
		return found
	}
	const maxRecord = 4 << 10
	for data := range disk.RecordData(dir, maxRecord) {
		found = append(found, fetch.RecordedReference(data))
	}
	return found
}

// completeTag returns the tags of a layout when the word has come to its tag.
func completeTag(ctx context.Context, layout string) (found []string) {
	end := strings.LastIndex(layout, ":")
	if end < 0 {
		return nil
	}
	tags, _ := local.Tags(ctx, layout[:end])
	for _, tag := range tags {
		if !strings.ContainsAny(tag, `\…`) { // it stands as it is
			found = append(found, "oci-layout:"+layout[:end+1]+tag)
		}
	}
	return found
}
