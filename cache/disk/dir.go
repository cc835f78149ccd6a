package disk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// digest is the SHA-256 of a blob's bytes: its key and its file's name.
type digest = [32]byte

// Options says where a cache is and how much it may take. The zero value of each field but Dir is
// usable.
type Options struct {
	Dir     string       // made when it is missing
	Size    int64        // limit in bytes on disk; 0: 10 GiB
	MinFree float64      // fraction of the file system that stays free; 0: 0.05, negative: none
	Verify  VerifyMode   // when content is hashed
	Log     *slog.Logger // nil: none
	Limits  *Limits      // nil: DefaultLimits

	Shed  func(n int) // closes up to n files not in use: there is no descriptor left; nil: none
	Sweep func()      // closes files not in use that were evicted; nil: none
}

// Dir is a cache directory by its path. It is safe for concurrent use, and any number of Dirs, in
// one process or in several, may be of one directory.
type Dir struct {
	opt   Options
	lim   Limits
	path  string
	quota *quota
	check *checker
	warn  *warner
	count struct{ damaged, evicted atomic.Int64 }

	background background

	mu  sync.Mutex     // guards cur and the refs of every folder
	cur *layout.Folder // replaced when the directory was deleted or replaced
}

// background is work that no caller waits for.
type background struct {
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// Open opens the cache in o.Dir and makes it when it is missing. It refuses a directory that other
// users own or may write, and a file system without flock; the error says what to do. It scans
// nothing.
func Open(o Options) (*Dir, error) {
	if o.Size <= 0 {
		o.Size = 10 << 30
	}
	if o.MinFree == 0 {
		o.MinFree = 0.05
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Shed == nil {
		o.Shed = func(int) {}
	}
	if o.Sweep == nil {
		o.Sweep = func() {}
	}
	lim := DefaultLimits()
	if o.Limits != nil {
		lim = *o.Limits
	}
	if o.Dir == "" {
		return nil, errors.New("cache: no folder given")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("cache: %s: %w", o.Dir, err)
	}
	o.Dir = dir
	path, err := layout.Resolve(dir)
	if err != nil {
		return nil, err
	}
	d := &Dir{
		opt: o, lim: lim, path: path,
		warn: &warner{log: o.Log, every: time.Minute},
	}
	d.quota, d.check = newQuota(d), newChecker(d)
	d.background.ctx, d.background.cancel = context.WithCancel(context.Background())
	f, err := d.use()
	if err != nil {
		d.background.cancel()
		return nil, fmt.Errorf("cache: cannot use %s (another folder: --cache-dir): %w", dir, err)
	}
	defer d.done(f)
	var st unix.Statfs_t
	if unix.Fstatfs(f.Root, &st) == nil {
		if _, warning := fileSystem(int64(st.Type)); warning != "" {
			o.Log.Warn(warning, "dir", dir)
		}
	}
	return d, nil
}

// Close ends the work in the background and waits for it. Blobs that are open stay readable.
func (d *Dir) Close() {
	d.background.cancel()
	d.background.work.Wait()
	d.mu.Lock()
	f := d.cur
	d.mu.Unlock()
	if f != nil {
		d.renew(f)
	}
}

// Path returns the absolute path of the directory.
func (d *Dir) Path() string { return d.opt.Dir }

// Counts returns how many blobs were found damaged and dropped, and how many were evicted.
func (d *Dir) Counts() (damaged, evicted int64) {
	return d.count.damaged.Load(), d.count.evicted.Load()
}

// Warn logs a warning about the directory, the same one at most once a minute.
func (d *Dir) Warn(msg string, err error) { d.warn.warn(msg, "dir", d.opt.Dir, "err", err) }

// Lookup returns the blob of key if it is there and sound; nil without an error means that it is
// not. size is its length in bytes, -1 when it is unknown. ErrSize says that the blob is sound and
// size is not.
func (d *Dir) Lookup(ctx context.Context, key [32]byte, size int64) (*Blob, error) {
	f, err := d.use()
	if err != nil {
		return nil, layout.OnDisk("open folder", err)
	}
	defer d.done(f)
	return d.check.look(ctx, f, key, size)
}

// Has says whether a file of that name is in the cache, unchecked and at the cost of one system
// call.
func (d *Dir) Has(key [32]byte) bool {
	f, err := d.use()
	if err != nil {
		return false
	}
	defer d.done(f)
	var st unix.Stat_t
	return unix.Fstatat(f.Blobs, layout.BlobPath(key), &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// Drop removes a blob that Blob.Read found damaged, unless its name leads to another file by now.
func (d *Dir) Drop(ctx context.Context, b *Blob, why error) {
	f, err := d.use()
	if err != nil {
		return
	}
	defer d.done(f)
	d.check.drop(ctx, f, b.key, b.ino, why.Error())
}

// Claim waits until this process is the only one that fills key and returns the file to fill, or
// the blob that another process has filled meanwhile. Trouble with the disk is met once: with room
// on a full one, with a new folder for a lost one. A Partial ends with Publish or Abandon.
func (d *Dir) Claim(ctx context.Context, key digest, size int64) (p *Partial, b *Blob, err error) {
	for try := 0; ; try++ {
		f, err := d.use()
		if err != nil {
			return nil, nil, layout.OnDisk("open folder", err)
		}
		if err = d.quota.fits(f, size); err == nil {
			p, b, err = claim(ctx, d, f, key, size)
		}
		if p != nil {
			return p, nil, nil
		}
		again := false
		switch {
		case try > 0 || !layout.IsError(err) || errors.Is(err, ErrRoom):
		case layout.Full(err):
			again = d.quota.makeRoom(ctx, f, max(size, 1<<20))
		case layout.Vanished(err):
			d.renew(f)
			again = true
		}
		d.done(f)
		if !again {
			return nil, b, err
		}
	}
}

// Room returns how many bytes fit before anything must be evicted, by an estimate; 0 when it cannot
// be told.
func (d *Dir) Room() int64 {
	f, err := d.use()
	if err != nil {
		return 0
	}
	defer d.done(f)
	used, ok := layout.EstimateUsage(f)
	free, err := d.quota.aboveFloor(f)
	if !ok || err != nil {
		return 0
	}
	return max(0, min(d.opt.Size-used, free))
}

// Record returns the record of name, or an error that Is fs.ErrNotExist when there is none that is
// sound.
func (d *Dir) Record(name string) ([]byte, error) {
	f, err := d.use()
	if err == nil {
		defer d.done(f)
		var data []byte
		if data, err = getRecord(d.background.ctx, d, f, name); err == nil {
			return data, nil
		}
	}
	return nil, fmt.Errorf("cache: record %q: %w", name, err)
}

// SetRecord keeps data, at most 1 MiB, under name. When there are more than 1,024 records or 64 MiB
// of them, those that were set longest ago go.
func (d *Dir) SetRecord(name string, data []byte) error {
	if len(data) > maxRecord {
		return fmt.Errorf("cache: record %q: %d bytes: more than %d", name, len(data), maxRecord)
	}
	f, err := d.use()
	if err != nil {
		return fmt.Errorf("cache: record %q: %w", name, err)
	}
	defer d.done(f)
	err = putRecord(d.background.ctx, d, f, name, data)
	if layout.Full(err) && d.quota.makeRoom(d.background.ctx, f, diskCost(int64(len(data)))) {
		err = putRecord(d.background.ctx, d, f, name, data)
	}
	if layout.Vanished(err) {
		d.renew(f)
	}
	if err != nil {
		return fmt.Errorf("cache: record %q: %w", name, err)
	}
	return nil
}

// Watch notices that the directory was deleted, moved, replaced or opened to others, and stops
// using it: the next call opens the path anew.
func (d *Dir) Watch() {
	f, err := d.use()
	if err != nil {
		d.Warn("the cache folder cannot be used: blobs are served from memory as far as they fit",
			err)
		return
	}
	defer d.done(f)
	if d.moved(f) {
		d.warn.warn("the cache folder was deleted, replaced or opened to others: it is opened anew",
			"dir", d.opt.Dir)
		d.renew(f)
	}
}

// Clean removes the files of fills whose process died.
func (d *Dir) Clean(ctx context.Context) {
	f, err := d.use()
	if err != nil {
		return
	}
	defer d.done(f)
	if cleanTmp(ctx, d, f) {
		d.quota.recountSoon()
	}
}

// use returns the folder, opening or making it as needed. The caller gives it back with done.
func (d *Dir) use() (*layout.Folder, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cur == nil {
		f, err := layout.OpenFolder(d.path, layout.Env{Wait: d.lim.WaitLimit, Shed: d.opt.Shed})
		if err != nil {
			return nil, err
		}
		d.cur = f
	}
	d.cur.Refs++
	return d.cur, nil
}

func (d *Dir) done(f *layout.Folder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f.Refs--
	if f.Refs == 0 && f != d.cur {
		f.Close()
	}
}

// renew makes the next use open the path anew.
func (d *Dir) renew(old *layout.Folder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cur == old {
		d.cur = nil
		if old.Refs == 0 {
			old.Close()
		}
	}
}

// moved says whether the path no longer leads to f, f lost its directories, or others may write to
// them now: Open would refuse that.
func (d *Dir) moved(f *layout.Folder) bool {
	var root unix.Stat_t
	if unix.Lstat(d.path, &root) != nil || uint64(root.Dev) != f.Dev || root.Ino != f.Ino ||
		layout.OwnDir(&root, d.path) != nil {
		return true
	}
	for name, fd := range map[string]int{"blobs": f.Blobs, "tmp": f.Tmp} {
		var st unix.Stat_t
		if same, err := layout.IsCurrent(fd, f.Root, name); !same || err != nil {
			return true
		}
		if unix.Fstat(fd, &st) != nil || layout.OwnDir(&st, name) != nil {
			return true
		}
	}
	return false
}
