package capture

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"time"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// The blobs of a session whose engine and processes were not captured, as the reference's own
// command line writes them: byte for byte, so that all such images share them.
const (
	noteEmpty = "generic-cli-empty: populated by adapters, not by walking a directory"
	modelDiff = `{"diff":{"adapters":[],"kind":"lora"},"layout":"model.diff.v1",` +
		`"note":"` + noteEmpty + `"}`
	cachePages = `{"dtype":"bf16","head_dim":0,"layout":"paged-batchinvariant-v1",` +
		`"logical_seqs":[],"n_heads":0,` +
		`"n_layers":0,"note":"` + noteEmpty + `","page_size_tokens":16,"pages":[]}`
	processes = `{"kind":"procs.unsupported.v1",` +
		`"note":"pf snapshot does not capture in-flight subprocesses ` +
		`without --criu-pid or --respawn-pid","unsupported_on":"linux"}`
)

// manifest is what manifest.json says.
type manifest struct {
	agent, version, name string
	base, diff, pages    pfimg.Digest
	fs, env, procs       pfimg.Digest
	ledger, trace        pfimg.Digest
	created              time.Time
	parents              []pfimg.Digest
}

// putConstants stores the blobs that have no source.
func (m *manifest) putConstants(s *store) error {
	for _, c := range []struct {
		to   *pfimg.Digest
		text string
	}{
		{&m.base, "base:" + lossy(m.agent)}, {&m.diff, modelDiff},
		{&m.pages, cachePages}, {&m.procs, processes},
	} {
		var err error
		if *c.to, err = s.put([]byte(c.text)); err != nil {
			return err
		}
	}
	return nil
}

// write writes manifest.json and gives its digest. The reference writes the manifest anew when it
// pulls an image, so every byte is as it would write it, or the image changes its id.
func (m *manifest) write(dir string) (pfimg.Digest, error) {
	b := m.append(nil)
	f, err := os.CreateTemp(dir, "manifest-*")
	if err != nil {
		return pfimg.Digest{}, err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, "manifest.json"))
	}
	if err != nil {
		_ = discard(f)
		return pfimg.Digest{}, err
	}
	return sha256.Sum256(b), nil
}

func (m *manifest) append(b []byte) []byte {
	text := func(before, s string) { b = appendString(append(b, before...), s) }
	text(`{"schema_version":1,"media_type":`, pfimg.MediaType)
	text(`,"agent":{"kind":`, m.agent)
	text(`,"version":`, m.version)
	text(`,"fingerprint":`, m.name)
	text(`},"model":{"base":`, m.base.String())
	text(`,"diff":`, m.diff.String())
	text(`},"cache":{"layout":`, "paged-batchinvariant-v1")
	text(`,"manifest":`, m.pages.String())
	text(`},"world":{"fs":`, m.fs.String())
	text(`,"env":`, m.env.String())
	text(`,"procs":`, m.procs.String())
	text(`},"effects":{"ledger":`, m.ledger.String())
	text(`},"trace":{"messages":`, m.trace.String())
	text(`},"created_at":`, timestamp(m.created))
	b = append(b, `,"parents":[`...)
	for i, p := range m.parents {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, p.String())
	}
	return append(b, "]}"...)
}

// timestamp is RFC 3339 in UTC with no, 3, 6 or 9 digits of a second, as few as say it exactly:
// what chrono, the reference's library, makes of any other number of them.
func timestamp(t time.Time) string {
	t = t.UTC()
	switch n := t.Nanosecond(); {
	case n == 0:
		return t.Format("2006-01-02T15:04:05Z")
	case n%1_000_000 == 0:
		return t.Format("2006-01-02T15:04:05.000Z")
	case n%1_000 == 0:
		return t.Format("2006-01-02T15:04:05.000000Z")
	}
	return t.Format("2006-01-02T15:04:05.000000000Z")
}
