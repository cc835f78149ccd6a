package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk"
)

// digest is the SHA-256 of a blob's bytes: its key.
type digest = [32]byte

// The errors of a blob, beside ErrClosed.
var (
	ErrDamaged   = disk.ErrDamaged
	ErrSize      = disk.ErrSize
	ErrElsewhere = disk.ErrElsewhere
	ErrUnwanted  = disk.ErrUnwanted
	ErrRoom      = disk.ErrRoom

	// ErrClosed says that the Store was closed.
	ErrClosed = errors.New("cache is closed")
)

// Options says where a cache is and how much it may take. The zero value of each field but Dir is
// usable.
type Options struct {
	Dir       string          // the cache folder; made when it is missing
	Size      int64           // limit in bytes on disk; 0: 10 GiB
	MinFree   float64         // fraction of the disk that stays free; 0: 0.05, negative: none
	Verify    disk.VerifyMode // when content is hashed
	Log       *slog.Logger    // nil: none
	OpenFiles int             // most files held open, fills included; 0: derived from RLIMIT_NOFILE
}

// Sink takes the bytes of one fill in order. Reset drops what was written, so that a fill can start
// over.
type Sink interface {
	io.Writer
	Reset() error
}

// Fill writes the whole content of one blob to w and returns nil only when those bytes hash to the
// blob's key. An error of w must end it: the disk has failed or the bytes are too many. ctx is the
// Store's, not a reader's.
type Fill func(ctx context.Context, w Sink) error

// Store keeps verified blobs in a directory, least recently used out first. It is safe for
// concurrent use, and any number of Stores, in one process or in several, may share a directory.
type Store struct {
	lim   limits
	dir   *disk.Dir
	table *table
	count counters
	life  life
}

// life ends a Store: every goroutine of it runs under ctx and is counted in wg.
type life struct {
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	workers workers // of the flights
}

// counters are what Stats reports, but for the numbers that the table knows.
type counters struct {
	hits, misses, fills, fillBytes, failed atomic.Int64
}

// Stats counts what a Store did since it was made. OpenFiles and MemoryBytes are of this moment.
type Stats struct {
	Hits        int64 // opens answered without a fill
	Misses      int64 // opens that waited for a fill
	Fills       int64 // fills that succeeded
	FillBytes   int64 // bytes they wrote
	Failed      int64 // fills that failed
	Damaged     int64 // blobs found damaged and dropped
	Evicted     int64 // blobs evicted by this Store
	OpenFiles   int   // descriptors held for blobs, fills included
	MemoryBytes int64 // bytes of blobs served from memory because the disk would not take them
}

// New opens the cache in o.Dir and makes it when it is missing. It refuses a folder that other
// users own or may write, and a file system without flock; the error says what to do. It scans
// nothing.
func New(o Options) (*Store, error) {
	return open(o, defaults())
}

func open(o Options, lim limits) (*Store, error) {
	if o.OpenFiles <= 0 {
		o.OpenFiles = openFiles()
	}
	s := &Store{lim: lim, table: newTable(o.OpenFiles, lim)}
	var err error
	s.dir, err = disk.Open(disk.Options{
		Dir: o.Dir, Size: o.Size, MinFree: o.MinFree, Verify: o.Verify, Log: o.Log,
		Limits: &lim.Limits, Shed: s.table.shed, Sweep: s.table.sweep,
	})
	if err != nil {
		return nil, err
	}
	s.life.ctx, s.life.cancel = context.WithCancel(context.Background())
	s.life.workers = make(workers)
	s.life.wg.Go(s.janitor)
	return s, nil
}

// openFiles derives the bound on open files from the limit of the process: half of what remains
// after 32, the rest being for connections, FUSE and the log.
func openFiles() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 64
	}
	return int(min(4096, max(8, (int64(min(r.Cur, 1<<20))-32)/2)))
}

// Get returns the blob of key if it is open already or on disk. It waits for no fill and begins
// none: false also means that one is under way. ctx bounds the check of a file that was not used
// before; with fill, it also serves a later read that finds the blob damaged, as in Open.
func (s *Store) Get(ctx context.Context, key [32]byte, size int64, fill Fill) (*File, bool) {
	e := s.peek(ctx, key, size)
	if e == nil {
		return nil, false
	}
	f, err := s.file(ctx, e, size, fill)
	return f, err == nil
}

// Open returns the blob of key, from the cache or after fill. size is its length in bytes, -1 when
// it is unknown. However many callers want a key at once, in this process or others, one fill runs;
// each caller waits under its own ctx and may leave. Under a ctx that is done, what is open is
// still returned and nothing is begun. A fill's error goes to all callers that wait and to those
// that ask within the next second. ctx also bounds the wait of a later read that finds the blob
// damaged. The caller must Close the File.
func (s *Store) Open(ctx context.Context, key [32]byte, size int64, fill Fill) (*File, error) {
	e, err := s.enter(ctx, key, size, fill)
	if err != nil {
		return nil, err
	}
	return s.file(ctx, e, size, fill)
}

// file makes a File of an entry whose length is as expected.
func (s *Store) file(ctx context.Context, e *entry, size int64, fill Fill) (*File, error) {
	if size >= 0 && e.blob.size() != size {
		s.table.release(e)
		return nil, disk.SizeError(e.key, size, e.blob.size())
	}
	return &File{s: s, ctx: ctx, size: size, fill: fill, first: e}, nil
}

// Stat reports the length of a blob that is on disk, checked as Open would check it: a length is
// shown to readers, which see nothing beyond it. It never fills.
func (s *Store) Stat(key [32]byte) (size int64, ok bool) {
	b, err := s.dir.Lookup(s.life.ctx, key, -1)
	if b == nil || err != nil {
		return 0, false
	}
	b.Close()
	return b.Size(), true
}

// Has says whether a file of that name is in the cache, unchecked and at the cost of one system
// call.
func (s *Store) Has(key [32]byte) bool { return s.table.has(key) || s.dir.Has(key) }

// Info scans the directory.
func (s *Store) Info(ctx context.Context) (disk.Info, error) { return s.dir.Info(ctx) }

// Room returns how many bytes fit before anything must be evicted, by an estimate; 0 when it cannot
// be told.
func (s *Store) Room() int64 { return s.dir.Room() }

// Prune evicts the least recently used blobs until at most target bytes are on disk, as
// disk.Dir.Prune does.
func (s *Store) Prune(ctx context.Context, target int64) (freed int64, n int, err error) {
	return s.dir.Prune(ctx, target)
}

// Verify hashes every blob and drops the damaged ones. Blobs that are evicted meanwhile are left
// out.
func (s *Store) Verify(ctx context.Context) (disk.Report, error) {
	return s.dir.Verify(ctx, s.table.discardKey)
}

// Clear removes every blob, record and leftover and keeps the directory. Fills under way go on, and
// open files live until they are closed.
func (s *Store) Clear(ctx context.Context) error {
	err := s.dir.Clear(ctx)
	s.table.clear()
	return err
}

// Record returns the record of name, as disk.Dir.Record does.
func (s *Store) Record(name string) ([]byte, error) { return s.dir.Record(name) }

// SetRecord keeps data under name, as disk.Dir.SetRecord does.
func (s *Store) SetRecord(name string, data []byte) error { return s.dir.SetRecord(name, data) }

// Fills returns how many fills may be under way at once; further ones wait.
func (s *Store) Fills() int { return s.table.mostFills() }

// Stats returns what the Store did so far.
func (s *Store) Stats() Stats {
	open, mem := s.table.usage()
	damaged, evicted := s.dir.Counts()
	return Stats{
		Hits: s.count.hits.Load(), Misses: s.count.misses.Load(),
		Fills: s.count.fills.Load(), FillBytes: s.count.fillBytes.Load(),
		Failed: s.count.failed.Load(), Damaged: damaged, Evicted: evicted,
		OpenFiles: open, MemoryBytes: mem,
	}
}

// Close ends the fills, waits for every goroutine of the Store and closes what is idle. Files still
// open stay readable until they are closed. A Fill that does not end with its ctx, or a disk that
// does not answer, is waited for three seconds and then left behind, with an error: a process that
// wants to end must not hang on it.
func (s *Store) Close() error {
	s.table.shut()
	s.life.cancel()
	ended := make(chan struct{})
	go func() {
		s.life.wg.Wait()
		s.dir.Close()
		close(ended)
	}()
	var err error
	select {
	case <-ended:
	case <-time.After(s.lim.leave):
		err = fmt.Errorf("cache: close: a fill did not end within %v of being told to", s.lim.leave)
	}
	s.table.drain()
	return err
}
