// Package pfimg is the ProcessFork image format: the signed manifest, the file tree and the page
// table, turned into one compact inode table. It promises that whatever it hands out follows from
// verified bytes alone, that hostile bytes give an error in bounded time and memory and never a
// half-true table, and that the same image has the same rows every time. It does no I/O of its own
// and knows neither registries, caches nor FUSE.
//
// A mounted image looks like this:
//
//	manifest.json  manifest.json.sig        the signed bytes
//	world/fs/…  world/env.json  world/procs.json
//	trace/messages.jsonl
//	effects/ledger.jsonl
//	model/base  model/diff.json
//	cache/manifest.json  cache/pages/<ix, 8 digits>.k  .v
//	blobs/sha256/<aa>/<hex>                 every blob under its digest
package pfimg

import "errors"

var (
	// ErrIntegrity says that bytes are damaged or lie: they do not parse, or contradict each other
	// or the rules of the format.
	ErrIntegrity = errors.New("integrity error")
	// ErrUnsupported says that bytes may be fine but are not for this version: another schema, no
	// ProcessFork image, more entries than the limits allow.
	ErrUnsupported = errors.New("not supported")
)

// The limits of an image. Names and paths are what Linux can open; depth and entries bound memory
// (about 100 bytes an entry) far above what sessions have.
const (
	MaxManifest = 1 << 20 // bytes of a manifest; real ones have about 1,000
	// entries of a tree, its directories and those that are only implied included; pages count
	// apart
	MaxEntries = 4_000_000
	MaxDepth   = 256  // names in a path
	MaxName    = 255  // bytes of a name (NAME_MAX)
	MaxPath    = 4096 // bytes of a path
	MaxLink    = 4095 // bytes of a symlink's target (PATH_MAX less its NUL)
	MaxPageIx  = 99_999_999
)

const (
	maxSize  = 1 << 53 // bytes of one blob: what JSON numbers can say exactly
	maxTotal = 1 << 60 // bytes of all files and pages: 1 EiB, so that sums cannot overflow
	maxText  = 1 << 30 // bytes of all link targets together, so that 32 bits address them
)
