package daemon

import (
	"context"
	"log/slog"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fusefs"
)

// RemoteError is a failure that the background process reported.
type RemoteError struct {
	Code    int // its exit code
	Message string
}

func (e RemoteError) Error() string { return e.Message }

// Config is a mount as it was asked for.
type Config struct {
	Image      string // as typed; the source in the mount table
	Mountpoint string // absolute, without symbolic links
	View       View
	Apart      map[string]string // directories that must not hold the mount point nor lie in it
	Log        Log
	Open       func(context.Context, *slog.Logger) (*Image, error)
	Interrupts *Interrupts
	Code       func(error) int // the exit code of an error
}

// View says what of the image is shown, and to which users.
type View struct {
	Subdir             string // the directory that is shown as the root; empty: all of the image
	UID, GID           uint32 // owner of every file
	AllowOther, NoExec bool
}

// Log says where and how much is logged.
type Log struct {
	File    string // of a background process, and in the foreground if it is not empty
	Verbose bool
}

func (l Log) level() slog.Level {
	if l.Verbose {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// Image is an open image, as the daemon serves it and reports on it.
type Image struct {
	Ref    string // in log lines
	Digest string
	Index  *pfimg.Index
	Blobs  fusefs.Blobs

	// Prefetch begins to fetch ahead of readers; it returns nil where nothing is fetched ahead.
	Prefetch func() (Prefetcher, error)
	// Stats counts what was done since the image was opened.
	Stats func() Stats
	// Tag asks for the digest that the image's tag names now; "" without a tag.
	Tag   func(context.Context) (string, error)
	Close func() error
}

// Prefetcher fetches what is not read yet.
type Prefetcher interface {
	Observer() fusefs.Observer // wants to be told of reads
	Serve(*fusefs.Server)      // begins to put files into the kernel's page cache
	Stop()                     // ends all that is under way, and begins nothing more
}

// Stats count what was done for an image.
type Stats struct {
	Source  SourceStats
	Cache   CacheStats
	Ahead   AheadStats
	Waited  int64 // reads that waited for a blob
	Offline bool  // the image was opened from the cache, since its source could not be reached
}

// SourceStats count what was read from the image's source.
type SourceStats struct {
	Bytes, Requests int64
	Whole           int64 // bytes of all of the image, its OCI manifest included; 0: not known
}

// CacheStats count blobs in the cache.
type CacheStats struct{ Hits, Misses, Failed, Damaged, Evicted int64 }

// AheadStats count blobs that were fetched ahead, and files that were put into the page cache.
type AheadStats struct{ Hits, Wasted, Shown int64 }
