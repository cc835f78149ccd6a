package capture

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// ahead is how many entries the walk may be ahead of the tree blob, for each reader. Each may hold
// an open file.
const ahead = 16

// tree captures a folder into the world.fs blob. One goroutine walks and opens, some read and store
// files, one writes the entries in the order of the walk.
type tree struct {
	store  *store
	log    *slog.Logger
	work   chan *entry // regular files to store
	out    chan *entry // all entries, in order
	report Report

	entries, most int // seen by the walk, and how many there may be
}

// entry is a name of the tree.
type entry struct {
	path string // as recorded
	kind pfimg.Kind
	mode uint32 // 07777
	size int64
	link string // as recorded
	file *regular
	blob pfimg.Digest
	done chan struct{} // closed when blob is known; nil: it is
}

func newTree(s *store, log *slog.Logger) *tree {
	n := jobs() * ahead
	return &tree{
		store: s,
		log:   log,
		work:  make(chan *entry, n),
		out:   make(chan *entry, n),
		most:  pfimg.MaxEntries,
	}
}

// capture records everything below dir and gives the tree's digest.
func (t *tree) capture(ctx context.Context, dir string) (d pfimg.Digest, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(t.out)
		defer close(t.work)
		return t.walk(ctx, dir)
	})
	for range jobs() {
		g.Go(func() error { return t.read(ctx) })
	}
	g.Go(func() error {
		d, err = t.write(ctx)
		return err
	})
	err = g.Wait()
	for e := range t.work { // left unread after an error
		e.file.close()
	}
	return d, err
}

// emit hands an entry on.
func (t *tree) emit(ctx context.Context, e *entry) error {
	if e.file != nil {
		e.done = make(chan struct{})
		select {
		case t.work <- e:
		case <-ctx.Done():
			e.file.close()
			return context.Cause(ctx)
		}
	}
	select {
	case t.out <- e:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// read stores files until there are no more.
func (t *tree) read(ctx context.Context) error {
	small := make([]byte, smallFile+1)
	for e := range t.work {
		var err error
		e.blob, err = e.file.store(ctx, t.store, small)
		e.file.close()
		if err != nil {
			return err
		}
		close(e.done)
	}
	return nil
}

// write writes the tree blob.
func (t *tree) write(ctx context.Context) (pfimg.Digest, error) {
	blob, err := t.store.create()
	if err != nil {
		return pfimg.Digest{}, err
	}
	buf := []byte(`{"kind":"fs.tree.v1","entries":[`)
	for first := true; ; first = false {
		e, err := t.next(ctx)
		if err == nil && e != nil {
			if !first {
				buf = append(buf, ',')
			}
			buf = t.add(buf, e)
			if len(buf) < readSize {
				continue
			}
		} else if err == nil {
			buf = append(buf, "]}"...)
		}
		if err == nil {
			_, err = blob.Write(buf)
			buf = buf[:0]
		}
		if err != nil {
			blob.drop()
			return pfimg.Digest{}, err
		}
		if e == nil {
			return blob.keep()
		}
	}
}

// next waits for the next entry and its blob; nil is the end.
func (t *tree) next(ctx context.Context) (*entry, error) {
	var e *entry
	select {
	case e = <-t.out:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if e == nil {
		return nil, context.Cause(ctx) // an error of the walk closes out, too
	}
	if e.done != nil {
		select {
		case <-e.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return e, nil
}

// add appends an entry as the reference writes it, and counts it.
func (t *tree) add(b []byte, e *entry) []byte {
	b = appendString(append(b, `{"path":`...), e.path)
	b = fmt.Appendf(b, `,"mode":"%04o","size":`, e.mode)
	b = strconv.AppendInt(b, e.size, 10)
	switch e.kind {
	case pfimg.Dir:
		t.report.Dirs++
		return append(b, `,"kind":"dir"}`...)
	case pfimg.Symlink:
		t.report.Symlinks++
		b = append(b, `,"kind":"symlink","blob":`...)
	default:
		t.report.Files++
		b = append(b, `,"kind":"file","blob":`...)
	}
	t.report.Bytes += e.size
	b = appendString(b, e.blob.String())
	if e.kind == pfimg.Symlink {
		b = appendString(append(b, `,"link_target":`...), e.link)
	}
	return append(b, '}')
}

// special names what is left out.
func special(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	}
	return "no file, folder or symlink"
}
