package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/cmd/pfmount/report"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/sign"
)

func pushCommand() *cli.Command {
	return &cli.Command{
		Name:      "push",
		Usage:     "copy an image from this machine to a registry, or capture a directory there",
		ArgsUsage: "SOURCE IMAGE",
		Description: `SOURCE is store:CID, file:///DIR, oci-layout:DIR[:TAG], or a directory, which
is captured as a new session. An image's signature and every blob are verified
first; then what the registry lacks is uploaded as it is stored, several blobs
at once, and the manifest last. With a key (--key-file, or PF_OCI_REG_SIGN_KEY)
the image is signed anew; a SOURCE under the public default key is accepted
then too. Without a key the source's signature is copied; a SOURCE without one
(a store, a directory) gets the public one.

What a request cannot take whole goes up in pieces of 16 MiB. Blobs that the
registry has in another repository, such as a parent's, need no upload:
--mount-from org/parent.

Example: pfmount push --trace chat.jsonl ./project ghcr.io/org/repo:tag

Limitations: registries take manifests up to 4 MiB, about 15,000 blobs; Amazon
ECR about 500, and only in a repository that was created before. A captured
directory needs room for its compressed files in $TMPDIR.`,
		Flags:  append(append(captureFlags(), carryFlags()...), pushFlags()...),
		Action: pushAction,
	}
}

// pushFlags say what of the registry a push counts on.
func pushFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{
			Name: "mount-from",
			Usage: "do not upload what the registry has in `REPOSITORY`, a parent's say " +
				"(may repeat)",
		},
		&cli.StringFlag{
			Name: "max-manifest-size", Value: "4MiB",
			Usage: "push an OCI manifest of up to `SIZE`, " +
				"for registries that take more than others",
		},
	}
}

func pushAction(c *cli.Context) error {
	source, dest, err := cmdline.TwoArgs(c, "SOURCE", "IMAGE")
	if err != nil {
		return err
	}
	dst, err := ref.Parse(dest)
	if err != nil {
		return err
	}
	if dst.Kind() != ref.Registry {
		return fault.Usagef("IMAGE %q is no registry; pfmount pull fills local places", dest)
	}
	log := consoleLogger(c.Bool("verbose"))
	o, err := fetchOptions(c, dst, log)
	if err != nil {
		return err
	}
	var key sign.Key
	if len(o.Policy.Keys) > 0 {
		key = o.Policy.Keys[0]
	}
	if o.Policy.Require && len(key) == 0 {
		return fault.Usagef("--require-key: no key to sign with; give one with --key-file FILE"+
			" or %s", dst.SignKeyVar())
	}
	push := fetch.PushOptions{
		Registry: o.Registry, Key: key, Meter: new(fetch.Meter),
		MountFrom: c.StringSlice("mount-from"),
	}
	if push.MaxManifest, err = parseSize(c, "max-manifest-size"); err != nil {
		return err
	}
	image, cleanup, err := openSource(c, source, dst, log)
	if err != nil {
		return err
	}
	defer cleanup()
	cargo, err := indexed(c.Context, image, log)
	if err != nil {
		return err
	}
	t := report.Copy{
		Out: c.App.Writer, Err: c.App.ErrWriter, JSON: c.Bool("json"), Quiet: c.Bool("quiet"),
		Verb: "pushed", Source: source, Dest: dst.String(), CID: image.Manifest().ID.String(),
		Log: log, Start: time.Now(),
	}
	p := report.StartProgress(c.App.ErrWriter, c.Bool("quiet"), push.Meter, "checking", "uploading")
	result, err := fetch.Push(c.Context, cargo, dst, push)
	p.Stop()
	return t.End(result, err)
}

// openSource opens what is pushed: a local image, or a directory, which is captured. cleanup closes
// the image and removes what was made for it.
func openSource(c *cli.Context, name string, dst ref.Ref, log *slog.Logger,
) (image *fetch.Image, cleanup func(), err error) {
	if isPlain(name) {
		return openCaptured(c, name, log)
	}
	for _, f := range captureFlags() {
		if c.IsSet(f.Names()[0]) {
			return nil, nil, fault.Usagef("--%s is for a directory; SOURCE %q is an image already",
				f.Names()[0], name)
		}
	}
	if image, err = openLocal(c, name, dst, log); err != nil {
		return nil, nil, err
	}
	return image, func() { image.Close() }, nil
}

// isPlain tells a directory from a reference: by the look of a path, or because it is there.
func isPlain(name string) bool {
	if strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") ||
		strings.HasPrefix(name, "../") || name == "." || name == ".." {
		return true
	}
	for _, scheme := range []string{"oci:", "oci-layout:", "file:", "store:"} {
		if strings.HasPrefix(name, scheme) {
			return false
		}
	}
	fi, err := os.Stat(name)
	return err == nil && fi.IsDir()
}

// openCaptured captures a directory and opens the image that this makes.
func openCaptured(c *cli.Context, dir string, log *slog.Logger) (*fetch.Image, func(), error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, nil, fault.Mark(fmt.Errorf("SOURCE: %w", err), fault.ErrUsage)
	}
	if !fi.IsDir() {
		return nil, nil, fault.Usagef("SOURCE %q is no directory", dir)
	}
	folder, remove, err := captureDir(c, dir)
	if err != nil {
		return nil, nil, err
	}
	image, err := openFolder(c, folder, log)
	if err != nil {
		remove()
		return nil, nil, err
	}
	return image, func() { image.Close(); remove() }, nil
}

// openFolder opens a captured directory. It is not signed yet, and is trusted, since it was made
// just now.
func openFolder(c *cli.Context, folder string, log *slog.Logger) (*fetch.Image, error) {
	source, err := parseImageArg(c, "file://"+folder, log)
	if err != nil {
		return nil, err
	}
	source.options.TrustFolder = "it was captured just now"
	return source.open(c.Context)
}

// openLocal opens a local image. A key that is given for the registry signs anew, so a source under
// the public default key passes as well when nothing else names the key of the source.
func openLocal(c *cli.Context, name string, dst ref.Ref, log *slog.Logger) (*fetch.Image, error) {
	source, err := parseImageArg(c, name, log)
	if err != nil {
		return nil, err
	}
	if source.ref.Kind() == ref.Registry {
		return nil, fault.Usagef("SOURCE %q is in a registry; push takes store:CID, file:///DIR, "+
			"oci-layout:DIR[:TAG] or a directory", name)
	}
	image, err := source.open(c.Context)
	shared := c.IsSet("key-file") || source.ref.SignKeyVar() == dst.SignKeyVar()
	policy := &source.options.Policy
	if errors.Is(err, sign.ErrSignature) && len(policy.Keys) > 0 && shared && !policy.Require {
		policy.Keys = nil
		if public, second := source.open(c.Context); second == nil {
			image, err = public, nil
		}
	}
	return image, err
}
