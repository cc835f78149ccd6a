package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pfmount/pfmount/cache/disk"
	"github.com/pfmount/pfmount/cache/disk/layout"
)

// flight is the one load of a key in this process. It belongs to the Store: readers join it and
// leave it.
type flight struct {
	done    chan struct{}
	entry   *entry // set before done closes; it holds one reference for each of readers
	err     error
	readers int // that wait; guarded by table.mu
	joined  int // readers that ever waited; guarded by table.mu
}

// failure is a flight's error, kept for a moment: the kernel repeats a failed read at once.
type failure struct {
	err error
	at  time.Time
}

// errNothing ends a flight of Get, which only looks: the blob is not on disk.
var errNothing = errors.New("not on disk")

// enter returns the entry of key with a reference for the caller: the one in the table or that of a
// flight.
func (s *Store) enter(ctx context.Context, key digest, size int64, fill Fill) (*entry, error) {
	for {
		e, fl, first, err := s.join(ctx, key, true)
		if e != nil || err != nil {
			return e, err
		}
		if first {
			b, none := s.glance(ctx, key, size)
			if b != nil {
				s.land(fl, key, b, false, nil)
				s.life.wg.Done()
				return fl.entry, nil
			}
			fly := func() { s.fly(fl, key, size, fill, none) }
			s.life.workers.run(s.life.ctx, fly, s.life.wg.Go)
		}
		select {
		case <-fl.done:
			if fl.err == errNothing {
				continue
			}
			return fl.entry, fl.err
		case <-ctx.Done():
			fl.leave(s.table)
			return nil, ctx.Err()
		}
	}
}

// peek is enter for what is in the table or on disk; nil when there is nothing, and when a flight
// would have to be waited for.
func (s *Store) peek(ctx context.Context, key digest, size int64) *entry {
	e, fl, first, err := s.join(ctx, key, false)
	if e != nil || err != nil || !first {
		return e
	}
	defer s.life.wg.Done()
	b, _ := s.glance(ctx, key, size)
	if b == nil {
		s.land(fl, key, nil, false, errNothing)
		return nil
	}
	s.land(fl, key, b, false, nil)
	return fl.entry
}

// join returns the entry of key that is in the table, or its flight, as a reader of it. first says
// that the flight is new and the caller's to run. Without wait a flight under way is not joined.
func (s *Store) join(
	ctx context.Context, key digest, wait bool,
) (e *entry, fl *flight, first bool, err error) {
	t := s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, nil, false, fmt.Errorf("cache: blob %x: %w", key, ErrClosed)
	}
	if e, ok := t.open.Get(key); ok {
		e.refs++
		e.used = time.Now()
		s.count.hits.Add(1)
		return e, nil, false, nil
	}
	if f, ok := t.failed.Get(key); ok {
		if time.Since(f.at) < s.lim.failureTTL {
			return nil, nil, false, f.err
		}
		t.failed.Remove(key)
	}
	fl = t.flights[key]
	if fl != nil && !wait {
		return nil, nil, false, nil
	}
	if first = fl == nil; first {
		if err := ctx.Err(); err != nil {
			return nil, nil, false, err
		}
		fl = &flight{done: make(chan struct{})}
		t.flights[key] = fl
		s.life.wg.Add(1)
	}
	fl.readers++
	fl.joined++
	return nil, fl, first, nil
}

// leave takes a reader out of a flight that may have ended in the same moment.
func (fl *flight) leave(t *table) {
	t.mu.Lock()
	fl.readers--
	landed := fl.entry
	t.mu.Unlock()
	if landed != nil {
		t.release(landed)
	}
}

// fly runs a flight to its end.
func (s *Store) fly(fl *flight, key digest, size int64, fill Fill, none bool) {
	defer s.life.wg.Done()
	b, filled, err := s.load(s.life.ctx, key, size, fill, none)
	s.land(fl, key, b, filled, err)
}

// land ends a flight.
func (s *Store) land(fl *flight, key digest, b *blob, filled bool, err error) {
	t := s.table
	t.mu.Lock()
	delete(t.flights, key)
	switch {
	case err == errNothing:
		fl.err = err
	case err != nil && s.life.ctx.Err() != nil:
		fl.err = fmt.Errorf("cache: blob %x: %w", key, ErrClosed)
	case err != nil:
		if fl.err = err; !errors.Is(err, ErrUnwanted) {
			t.failed.Add(key, failure{err, time.Now()})
		}
	default:
		fl.entry = t.insert(key, b)
		fl.entry.refs = fl.readers + 1 // one until here, given back below
	}
	joined := int64(fl.joined)
	close(fl.done)
	t.mu.Unlock()
	if fl.entry != nil {
		t.release(fl.entry)
	}
	switch {
	case err == errNothing:
	case filled || err != nil:
		s.count.misses.Add(joined)
	default:
		s.count.hits.Add(joined)
	}
}

// glance is load for what is on disk and needs no wait, by the first reader itself: no goroutine is
// begun for it. none says that there is nothing; when the reader's time ends on the way, or
// anything is odd, load does it again.
func (s *Store) glance(ctx context.Context, key digest, size int64) (b *blob, none bool) {
	if !s.table.tryFile() {
		return nil, false
	}
	b, err := s.onDisk(ctx, key, size)
	if b == nil {
		s.table.give(use{files: 1})
	}
	return b, b == nil && err == nil
}

// load finds the blob on disk, unless it is known that there is none, or fills it. The descriptor
// of the blob it returns is accounted for in the table.
func (s *Store) load(
	ctx context.Context, key digest, size int64, fill Fill, none bool,
) (b *blob, filled bool, err error) {
	if !none {
		if err := s.table.takeFile(ctx); err != nil {
			return nil, false, err
		}
		if b, err = s.onDisk(ctx, key, size); b != nil {
			return b, false, nil
		}
		s.table.give(use{files: 1})
		if err != nil {
			return nil, false, err
		}
	}
	if err := s.table.takeFill(ctx); err != nil {
		return nil, false, err
	}
	defer s.table.give(use{fills: 1})
	if err := s.table.takeFile(ctx); err != nil {
		return nil, false, err
	}
	b, filled, err = s.fill(ctx, key, size, fill)
	if b == nil || b.file == nil {
		s.table.give(use{files: 1})
	}
	if filled {
		s.count.fills.Add(1)
		s.count.fillBytes.Add(b.size())
	}
	return b, filled, err
}

// onDisk looks for the blob in the directory. An error of the disk is a miss here: the fill meets
// it again.
func (s *Store) onDisk(ctx context.Context, key digest, size int64) (*blob, error) {
	b, err := s.dir.Lookup(ctx, key, size)
	if layout.IsError(err) {
		return nil, nil
	}
	if b == nil {
		return nil, err
	}
	return &blob{file: b}, nil
}

// fill brings the blob of key: to disk if the disk takes it, else to memory. filled is false when
// another process was faster.
func (s *Store) fill(
	ctx context.Context, key digest, size int64, fill Fill,
) (_ *blob, filled bool, err error) {
	p, found, err := s.dir.Claim(ctx, key, size)
	if found != nil {
		return &blob{file: found}, false, nil
	}
	if err != nil && !layout.IsError(err) {
		return nil, false, err
	}
	k := newSink(ctx, s, p, size)
	if p == nil {
		err = k.toMemory(err)
	}
	if err == nil {
		err = k.run(fill)
	}
	var b *blob
	switch {
	case err != nil:
		k.drop()
		if p != nil {
			p.Abandon(err)
		}
	case k.mem != nil:
		if p != nil {
			p.Abandon(nil)
		}
		b = k.memoryBlob()
	default:
		var file *disk.Blob
		if file, err = p.Publish(ctx); err == nil {
			b = &blob{file: file}
		}
	}
	if err != nil {
		s.count.failed.Add(1)
		return nil, false, err
	}
	return b, true, nil
}
