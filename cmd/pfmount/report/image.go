package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/sign"
)

// summary is the JSON of `pfmount inspect`.
type summary struct {
	Schema         int              `json:"schema"`
	Reference      string           `json:"reference"`
	ManifestDigest string           `json:"manifest_digest"`
	CID            string           `json:"cid"`
	CreatedAt      time.Time        `json:"created_at"`
	Agent          summaryAgent     `json:"agent"`
	Parents        []string         `json:"parents"`
	Signature      summarySignature `json:"signature"`
	Files          int              `json:"files"`
	Dirs           int              `json:"dirs"`
	Symlinks       int              `json:"symlinks"`
	Pages          int              `json:"pages"`
	Layers         int              `json:"layers"`
	WireBytes      int64            `json:"wire_bytes"`
	DecodedBytes   int64            `json:"decoded_bytes"`
	Missing        int              `json:"missing"`
}

type summaryAgent struct {
	Kind        string `json:"kind"`
	Version     string `json:"version"`
	Fingerprint string `json:"fingerprint"`
}

// summarySignature says which key matched: "default" or "given"; "none" when
// nothing was verified.
type summarySignature struct {
	Algorithm string `json:"algorithm"`
	Key       string `json:"key"`
}

// Image prints what an image is.
func Image(w io.Writer, image *fetch.Image, ix *pfimg.Index, asJSON bool) error {
	sum := summarize(image, ix)
	if asJSON {
		return JSON(w, sum)
	}
	return sum.print(w)
}

func summarize(image *fetch.Image, ix *pfimg.Index) summary {
	m, st := image.Manifest(), ix.Stats()
	sum := summary{
		Schema: 1, Reference: image.Ref().String(), ManifestDigest: image.Digest(),
		CID:       m.ID.String(),
		CreatedAt: m.Created.UTC(),
		Agent:     summaryAgent{m.Agent.Kind, m.Agent.Version, m.Agent.Fingerprint},
		Parents:   []string{}, Signature: summarySignature{Key: string(m.Signer)},
		Files: st.Files, Dirs: st.Dirs, Symlinks: st.Symlinks, Pages: st.Pages,
		Layers: image.Facts().Layers, WireBytes: image.Facts().WireBytes, DecodedBytes: st.Bytes,
	}
	if m.Signer != "none" {
		sum.Signature.Algorithm = sign.HMACSHA256
	}
	for _, p := range m.Parents {
		sum.Parents = append(sum.Parents, p.String())
	}
	for d := range ix.Blobs() {
		if _, _, ok := image.Wire(d); !ok {
			sum.Missing++
		}
	}
	return sum
}

func (s summary) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(name, value string) { fmt.Fprintf(tw, "%s\t%s\n", name, safetext.Plain(value)) }
	row("reference", s.Reference)
	if s.ManifestDigest != "" {
		row("digest", s.ManifestDigest)
	}
	row("id", s.CID)
	row("created", s.CreatedAt.Format(time.RFC3339Nano))
	row("agent", strings.TrimSpace(s.Agent.Kind+" "+s.Agent.Version+" "+s.Agent.Fingerprint))
	for _, p := range s.Parents {
		row("parent", p)
	}
	switch s.Signature.Key {
	case "default":
		row("signature",
			s.Signature.Algorithm+", public default key (proves nothing about the author)")
	case "given":
		row("signature", s.Signature.Algorithm+", given key")
	default:
		row("signature", "not verified")
	}
	row("tree", fmt.Sprintf("%d files, %d folders, %d symlinks", s.Files, s.Dirs, s.Symlinks))
	row("pages", fmt.Sprint(s.Pages))
	row("layers", fmt.Sprintf("%d, %s on the wire, %s decoded", s.Layers,
		humanize.IBytes(uint64(s.WireBytes)), humanize.IBytes(uint64(s.DecodedBytes))))
	if s.Missing > 0 {
		row("missing", fmt.Sprintf("%d blobs that the image names have no layer", s.Missing))
	}
	return tw.Flush()
}
