package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/cmd/pfmount/report"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/sign"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "check an image's signature and hash every blob it names",
		ArgsUsage: "IMAGE",
		Description: `Checks the signature, then fetches and hashes every blob that the signed
manifest reaches, streaming, without filling the cache. Lists every bad or
missing one before it exits with 4.

Example: pfmount verify --key-file team.key ghcr.io/org/repo:tag

Limitations: nothing is taken from the cache, so the whole image is fetched.`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "manifest", Usage: "stop after the signature"},
			jsonFlag(), verboseFlag(),
		}, imageFlags()...),
		Action: verifyAction,
	}
}

// verifyWorkers is how many blobs are hashed at once: enough to keep two
// cores and one connection pool busy.
const verifyWorkers = 8

func verifyAction(c *cli.Context) error {
	arg, err := cmdline.OneArg(c, "IMAGE")
	if err != nil {
		return err
	}
	source, err := parseImageArg(c, arg, consoleLogger(c.Bool("verbose")))
	if err != nil {
		return err
	}
	image, err := source.open(c.Context)
	if err != nil {
		return err
	}
	defer image.Close()
	m := image.Manifest()
	v := &verdict{
		Schema:         1,
		Reference:      image.Ref().String(),
		ManifestDigest: image.Digest(),
		CID:            m.ID.String(),
		CreatedAt:      m.Created.UTC(),
		Key:            string(m.Signer),
		Bad:            []badBlob{},
	}
	if !c.Bool("manifest") {
		if err := v.hashAll(c.Context, image); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		err = report.JSON(c.App.Writer, v)
	} else {
		err = v.print(c.App.Writer)
	}
	if v.worst != nil {
		return shownError{v.worst}
	}
	return err
}

// verdict is the JSON of `pfmount verify`.
type verdict struct {
	Schema         int        `json:"schema"`
	Reference      string     `json:"reference"`
	ManifestDigest string     `json:"manifest_digest"`
	CID            string     `json:"cid"`
	CreatedAt      time.Time  `json:"created_at"`
	Key            string     `json:"key"`
	Blobs          int        `json:"blobs"`
	Bytes          int64      `json:"bytes"`
	Bad            []badBlob  `json:"bad"`
	mu             sync.Mutex // guards Blobs, Bytes, Bad, worst
	worst          error
}

// badBlob is a blob that is missing, cannot be had or is not what was signed.
type badBlob struct {
	Digest string `json:"digest"`
	Error  string `json:"error"`
}

// hashAll hashes every blob and notes each that fails.
func (v *verdict) hashAll(ctx context.Context, image *fetch.Image) error {
	ix, err := reader.BuildIndex(ctx, image, nil)
	if err != nil {
		return err
	}
	g := new(errgroup.Group)
	g.SetLimit(verifyWorkers)
	for d, size := range ix.Blobs() {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			var sink artifact.Discard
			err := image.Blob(ctx, d, size, &sink)
			v.note(d, int64(sink), err)
			return nil
		})
	}
	_ = g.Wait()
	return ctx.Err()
}

// note adds one blob. Damage outweighs an unreachable registry.
func (v *verdict) note(d pfimg.Digest, n int64, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.Blobs++
	v.Bytes += n
	if err == nil {
		return
	}
	v.Bad = append(v.Bad, badBlob{d.String(), err.Error()})
	if v.worst == nil || errors.Is(err, pfimg.ErrIntegrity) {
		v.worst = err
	}
}

func (v *verdict) print(w io.Writer) error {
	for _, b := range v.Bad {
		fmt.Fprintf(w, "bad %s: %s\n", b.Digest, safetext.Plain(b.Error))
	}
	if len(v.Bad) > 0 {
		fmt.Fprintf(w, "%s: %d of %d blobs are bad or missing\n", v.Reference, len(v.Bad), v.Blobs)
		return nil
	}
	if v.Blobs == 0 {
		fmt.Fprintf(w, "%s: %s, id %s\n", v.Reference, v.signature(), v.CID)
		return nil
	}
	fmt.Fprintf(w, "%s: %s, %d blobs ok, %d bytes, id %s\n",
		v.Reference, v.signature(), v.Blobs, v.Bytes, v.CID)
	return nil
}

// signature returns what is known of the image's signature.
func (v *verdict) signature() string {
	if v.Key == string(sign.SignerNone) {
		return "signature not checked"
	}
	return "signature ok (" + v.Key + " key)"
}
