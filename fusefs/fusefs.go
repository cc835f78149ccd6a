// Package fusefs serves the tree of an image, a pfimg.Index, as a read-only FUSE file system. It
// promises that names, attributes, links and directory listings are answered from memory and never
// wait for anything; that only READ, and the GETATTR of a file whose size is not known yet, wait
// for bytes; that a byte is shown only after Blobs vouched for it; and that a failure is an error
// and never a short, empty or missing file. It knows nothing of registries, caches or signatures:
// it asks one interface, Blobs, for an open blob by digest.
//
// # No state
//
// The node id of FUSE is the row of the index, so there is nothing to look up, to count or to
// forget. Open, OpenDir and Flush are answered ENOSYS, after which the kernel no longer sends them
// and keeps what it has read; entries, attributes, absent names and link targets are valid for
// ever, since an image never changes.
//
// # Memory
//
// A READ that waits holds its buffer. The kernel sends at most Options.MaxBackground (2,048) of the
// asynchronous ones at a time, of at most 128 KiB each: 256 MiB when all of them wait, and then
// nothing larger than a page is read that is not in the page cache. From a quarter of them on it
// reads no further ahead than it must, so that takes more than a thousand readers. A synchronous
// one, which the kernel sends where read-ahead failed, is bounded by the reader: each waiting
// thread has one, of a page (with O_DIRECT 128 KiB).
//
// # Signals
//
// A reader that is killed leaves at once or, where the kernel insists on an answer, after about 200
// ms; one that handles a signal gets its bytes and never EINTR. A waiting call leaves the fill it
// waits for to the others.
package fusefs

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

// Blobs opens the decoded blobs of an image.
type Blobs interface {
	// Open opens the blob d, which is size bytes long (-1: not known), fetching it first if need
	// be. Where the blob is at hand it does not ask for ctx.Done, which keeps such a read free of a
	// goroutine. It returns when ctx is done, while the fill goes on for others, and it begins no
	// fill under a ctx that is done already.
	Open(ctx context.Context, d pfimg.Digest, size int64) (File, error)
}

// File is a complete, verified blob, open for reading by one call.
type File interface {
	io.ReaderAt
	// Size is the blob's length in bytes.
	Size() int64
	Close() error
}

// Defaults of Options.
const (
	defaultSizeWait = 10 * time.Second // the only wait beside READ, so it has a bound of its own
	// With go-fuse's own 12, 12 stalled readers block every cached read.
	defaultMaxBackground = 2048
)

// Options say how an image is shown. The zero value shows all of it, owned by root, to the mounting
// user alone.
type Options struct {
	UID, GID      uint32        // owner of every file
	Root          pfimg.Row     // directory shown as the root; 0: pfimg.Root
	Image         string        // the image in log lines; empty: the source in the mount table
	Log           *slog.Logger  // nil: none
	SizeWait      time.Duration // how long a GETATTR waits for an unknown size, then EIO; 0: 10 s
	MaxBackground int           // asynchronous requests at a time, at most 65,535; 0: 2,048

	Mount    mounts.Options // MaxRead is not heeded
	Observer Observer       // nil: none
}

// Observer is told what a mount is asked for. Its methods are called by many goroutines at once and
// must not wait.
type Observer interface {
	// Reading is called for each READ of a blob, before the blob is opened. pid is the calling
	// thread, 0 when that is not known.
	Reading(r pfimg.Row, pid uint32)
	// Listing is called when the listing of a directory begins.
	Listing(dir pfimg.Row, pid uint32)
	// Listed is called when a listing goes on or ends: the kernel knows the files before.
	Listed(dir pfimg.Row)
}

// FS serves an index and keeps no state for a node.
type FS struct {
	fuse.RawFileSystem // answers what is not implemented here

	ix       *pfimg.Index
	blobs    Blobs
	opts     Options
	stamp    fuse.Attr // what all rows share: times, owner, block size
	failures *failures
	drain    *drain

	answering answering
}

var _ fuse.RawFileSystem = (*FS)(nil)

// New returns the file system of ix, for tests and for servers of one's own; Mount is the usual
// way.
func New(ix *pfimg.Index, blobs Blobs, o Options) *FS {
	if o.Root == 0 {
		o.Root = pfimg.Root
	}
	if o.Mount.Source == "" {
		o.Mount.Source = mounts.Subtype
	}
	if o.Image == "" {
		o.Image = o.Mount.Source
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.SizeWait == 0 {
		o.SizeWait = defaultSizeWait
	}
	if o.MaxBackground == 0 {
		o.MaxBackground = defaultMaxBackground
	}
	return &FS{
		RawFileSystem: readOnly{fuse.NewDefaultRawFileSystem()},
		ix:            ix,
		blobs:         blobs,
		opts:          o,
		stamp:         stamp(ix.Created(), o),
		failures:      newFailures(o.Log, o.Image),
		drain:         newDrain(),
		answering:     answering{rows: map[pfimg.Row]int{}},
	}
}
