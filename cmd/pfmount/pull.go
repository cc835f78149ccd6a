package main

import (
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/cmd/pfmount/report"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/sign"
)

func pullCommand() *cli.Command {
	return &cli.Command{
		Name:      "pull",
		Usage:     "copy an image from a registry to this machine",
		ArgsUsage: "IMAGE DEST",
		Description: `DEST is file:///DIR, oci-layout:DIR[:TAG] or store:. The signature is verified
first; then what DEST lacks is fetched, several blobs at once, and kept as it
came, each checked against its wire and logical digests before it gets its
name. The manifest comes last, and a pull that was interrupted goes on. A DEST
that holds another image is refused. A file:// DEST keeps the verified
signature, unless PF_FILE_REG_SIGN_KEY is set, which signs it anew.

Example: pfmount pull ghcr.io/org/repo:tag oci-layout:./sessions:tag

Limitations: a blob that was cut in the middle is fetched from its start.`,
		Flags:  carryFlags(),
		Action: pullAction,
	}
}

func pullAction(c *cli.Context) error {
	name, dest, err := cmdline.TwoArgs(c, "IMAGE", "DEST")
	if err != nil {
		return err
	}
	dst, err := ref.ParseDest(dest, c.String("store"))
	if err != nil {
		return err
	}
	if dst, err = dst.Abs(); err != nil {
		return err
	}
	key, err := destKey(dst)
	if err != nil {
		return err
	}
	log := consoleLogger(c.Bool("verbose"))
	source, err := parseImageArg(c, name, log)
	if err != nil {
		return err
	}
	image, err := source.open(c.Context)
	if err != nil {
		return err
	}
	defer image.Close()
	cargo, err := indexed(c.Context, image, log)
	if err != nil {
		return err
	}
	t := report.Copy{
		Out: c.App.Writer, Err: c.App.ErrWriter, JSON: c.Bool("json"), Quiet: c.Bool("quiet"),
		Verb: "pulled", Source: image.Ref().String(), Dest: dst.String(),
		CID: image.Manifest().ID.String(), Log: log, Start: time.Now(),
	}
	if dst.Kind() == ref.Store {
		t.Dest = "store:" + image.Manifest().ID.Hex()
	}
	meter := new(fetch.Meter)
	p := report.StartProgress(c.App.ErrWriter, c.Bool("quiet"), meter, "fetching", "fetching")
	result, err := fetch.Pull(c.Context, cargo, dst,
		fetch.PullOptions{Key: key, Workers: source.options.Registry.MaxConns, Meter: meter})
	p.Stop()
	return t.End(result, err)
}

// destKey is the key that the environment gives for the images of a local place.
func destKey(dst ref.Ref) (sign.Key, error) {
	name := dst.SignKeyVar()
	if name == "" {
		return nil, nil
	}
	key, _, err := sign.KeyFromEnv(name, os.LookupEnv)
	return key, err
}
