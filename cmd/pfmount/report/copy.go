package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/sign"
)

// carried is the JSON of `pfmount push` and `pfmount pull`.
type carried struct {
	Schema         int     `json:"schema"`
	Source         string  `json:"source"`
	Destination    string  `json:"destination"`
	ManifestDigest string  `json:"manifest_digest"`
	CID            string  `json:"cid"`
	Blobs          int     `json:"blobs"`
	Copied         int     `json:"copied"`
	Skipped        int     `json:"skipped"`
	Bytes          int64   `json:"bytes"`
	Seconds        float64 `json:"seconds"`
}

// Copy prints what came of one push or pull.
type Copy struct {
	Out, Err    io.Writer
	JSON, Quiet bool
	Log         *slog.Logger
	Start       time.Time
	Verb        string // "pushed", "pulled"
	Source, CID string
	Dest        string // as it can be opened
}

// End prints what was done. It returns err, with how to go on after it.
func (t Copy) End(report fetch.Report, err error) error {
	for _, w := range report.Warnings {
		t.Log.Warn(w, "image", t.Dest)
	}
	if err != nil {
		return t.unfinished(report, err)
	}
	took := time.Since(t.Start)
	if !t.Quiet {
		fmt.Fprintf(t.Err, "%s %d blobs: %d copied (%s), %d were there, in %s\n", t.Verb,
			report.Blobs, report.Copied, Size(report.Bytes), report.Skipped,
			took.Round(time.Millisecond))
	}
	if t.JSON {
		return JSON(t.Out, carried{
			Schema: 1, Source: t.Source, Destination: t.Dest, ManifestDigest: report.Digest,
			CID: t.CID, Blobs: report.Blobs, Copied: report.Copied, Skipped: report.Skipped,
			Bytes: report.Bytes, Seconds: took.Seconds(),
		})
	}
	_, err = fmt.Fprintln(t.Out, t.Dest)
	return err
}

// unfinished adds to an error how to go on, where running the command again is the way.
func (t Copy) unfinished(report fetch.Report, err error) error {
	for _, stays := range []error{
		local.ErrTaken, registry.ErrTooLarge, ref.ErrInvalid, sign.ErrKey, pfimg.ErrIntegrity,
		pfimg.ErrUnsupported,
	} {
		if errors.Is(err, stays) {
			return err
		}
	}
	if report.Blobs == 0 && !errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w; %d blobs are there (%d copied now); the same command goes on from here",
		err, report.Blobs, report.Copied)
}
