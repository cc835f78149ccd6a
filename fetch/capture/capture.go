// Package capture turns a directory into a ProcessFork image: manifest.json and the blobs that it
// reaches, in a folder as the reference tool keeps images (file://), without a signature. It
// promises that what it records is what was there: a file that changes while it is read, or that
// cannot be read, ends the capture with an error that names it, and nothing that is no file, folder
// or symlink is ever opened. Memory does not grow with the size of files; of the tree it holds the
// names of the folders on the way to where it is. It knows neither registries nor keys.
package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// ErrSource says that what was to be captured cannot be, as it stands: it changed, cannot be read,
// breaks a limit of the format, or a file beside it is not what it must be. An error of the folder
// written to never is.
var ErrSource = errors.New("cannot be captured")

// Options say what is recorded beside the tree. The zero value is usable.
type Options struct {
	Agent   string // agent.kind; "": anonymous
	Name    string // agent.fingerprint; "": pfmount
	Version string // agent.version
	// a file of JSON lines, each an object with the strings role and content; "": none
	Trace   string
	Effects string            // a file of JSON lines: a ledger, or its entries alone; "": none
	Parents []pfimg.Digest    // ids of the images that this session came from
	Environ []string          // NAME=value, as os.Environ has it; nil: none is recorded
	Level   zstd.EncoderLevel // 0: zstd.SpeedBetterCompression
	Log     *slog.Logger      // nil: warnings are dropped
	Now     func() time.Time  // nil: time.Now
}

// Report says what a capture recorded.
type Report struct {
	CID                   pfimg.Digest // SHA-256 of manifest.json
	Files, Dirs, Symlinks int
	Skipped               int   // FIFOs, sockets and devices left out
	Blobs                 int   // different ones
	Bytes, StoredBytes    int64 // of all files and links; of all blobs, compressed
}

// ParseLevel reads a level of compression: fastest, default, better, best, or a number of the zstd
// tool (1 to 22).
func ParseLevel(s string) (zstd.EncoderLevel, error) {
	if ok, level := zstd.EncoderLevelFromString(s); ok {
		return level, nil
	}
	var n int
	if _, err := fmt.Sscanf(s, "%d", &n); err != nil || fmt.Sprint(n) != s || n < 1 || n > 22 {
		return 0, fmt.Errorf("level %q: want fastest, default, better, best, or 1 to 22", s)
	}
	return zstd.EncoderLevelFromZstd(n), nil
}

// Capture records the directory dir as an image in the folder into, which it makes if need be and
// which must be empty and outside dir. After an error into holds parts of an image and no
// manifest.json. The error is ErrSource when it is dir's or one of the files', the context's, or
// one of writing.
func Capture(ctx context.Context, dir, into string, o Options) (Report, error) {
	dir, err := prepare(dir, into)
	if err != nil {
		return Report{}, err
	}
	s, err := newStore(into, o.level(), jobs())
	if err != nil {
		return Report{}, err
	}
	defer s.close()
	m := manifest{
		agent:   o.Agent,
		version: o.Version,
		name:    o.Name,
		parents: o.Parents,
		created: o.now(),
	}
	if m.agent == "" {
		m.agent = "anonymous"
	}
	if m.name == "" {
		m.name = "pfmount"
	}
	if err := m.putConstants(s); err != nil {
		return Report{}, err
	}
	if m.env, err = s.put(environment(dir, o.Environ)); err != nil {
		return Report{}, err
	}
	if m.trace, err = putTrace(ctx, s, o.Trace); err != nil {
		return Report{}, err
	}
	if m.ledger, err = putLedger(s, o.Effects, m.created); err != nil {
		return Report{}, err
	}
	t := newTree(s, o.logger())
	if m.fs, err = t.capture(ctx, dir); err != nil {
		return Report{}, err
	}
	r := t.report
	if r.CID, err = m.write(into); err != nil {
		return Report{}, err
	}
	r.Blobs, r.StoredBytes = int(s.blobs.Load()), s.stored.Load()
	return r, nil
}

// prepare checks the two folders and gives the real path of the first.
func prepare(dir, into string) (string, error) {
	real, err := filepath.Abs(dir)
	if err == nil {
		real, err = filepath.EvalSymlinks(real)
	}
	if err != nil {
		return "", source(dir, err)
	}
	if st, err := os.Stat(real); err != nil {
		return "", source(dir, err)
	} else if !st.IsDir() {
		return "", fmt.Errorf("%q: it is no folder: %w", dir, ErrSource)
	}
	if err := os.MkdirAll(into, 0o700); err != nil {
		return "", err
	}
	out, err := filepath.Abs(into)
	if err == nil {
		out, err = filepath.EvalSymlinks(out)
	}
	if err != nil {
		return "", err
	}
	if out == real || strings.HasPrefix(out, strings.TrimSuffix(real, "/")+"/") {
		return "", fmt.Errorf(
			"%q: the image would be written into it, to %q; "+
				"another TMPDIR helps where that is a temporary folder: %w",
			dir, into, ErrSource)
	}
	f, err := os.Open(into)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if names, err := f.Readdirnames(1); err != io.EOF {
		if err == nil {
			err = fmt.Errorf("it holds %q", names[0])
		}
		return "", fmt.Errorf("%q: it must be empty: %w", into, err)
	}
	return real, nil
}

// jobs is how many files are read and compressed at once. Each may take about 30 MB for an encoder,
// and more than eight wait for the disk.
func jobs() int { return min(runtime.GOMAXPROCS(0), 8) }

func (o Options) level() zstd.EncoderLevel {
	if o.Level == 0 {
		return zstd.SpeedBetterCompression
	}
	return o.Level
}

func (o Options) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

func (o Options) logger() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// source wraps what happened to a path of the source.
func source(path string, err error) error {
	return fmt.Errorf("%q: %w: %w", path, bare(err), ErrSource)
}

// bare drops the path that os errors repeat.
func bare(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
