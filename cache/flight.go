package cache

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// flight is the one load of a key in this process. It belongs to the Store: readers join it and leave it.
type flight struct {
	done    chan struct{}
	entry   *entry // set before done closes; it holds one reference for each of readers
	err     error
	readers int // who wait; guarded by table.mu
	joined  int // whoever waited, those who left included; guarded by table.mu
}

// failure is a flight's error, kept for a moment: the kernel repeats a failed read at once.
type failure struct {
	err error
	at  time.Time
}

// enter returns the entry of key with a reference for the caller: the one in the table or that of a flight.
func (s *Store) enter(ctx context.Context, key digest, size int64, fill Fill) (*entry, error) {
	t := s.table
	t.mu.Lock()
	if e, ok := t.open.Get(key); ok && !t.closed {
		e.refs++
		e.used = time.Now()
		t.mu.Unlock()
		s.count.hits.Add(1)
		return e, nil
	}
	if t.closed {
		t.mu.Unlock()
		return nil, fmt.Errorf("cache: blob %x: %w", key, ErrClosed)
	}
	if f, ok := t.failed.Get(key); ok {
		if time.Since(f.at) < s.lim.keep {
			t.mu.Unlock()
			return nil, f.err
		}
		t.failed.Remove(key)
	}
	fl := t.flights[key]
	first := fl == nil
	if first {
		if err := ctx.Err(); err != nil {
			t.mu.Unlock()
			return nil, err
		}
		fl = &flight{done: make(chan struct{})}
		t.flights[key] = fl
		s.life.wg.Add(1)
	}
	fl.readers++
	fl.joined++
	t.mu.Unlock()

	if first {
		b, none := s.glance(ctx, key, size)
		if b != nil {
			s.land(fl, key, b, false, nil)
			s.life.wg.Done()
			return fl.entry, nil
		}
		s.life.crew.run(s.life.ctx, func() { s.fly(fl, key, size, fill, none) }, s.life.wg.Go)
	}
	select {
	case <-fl.done:
		return fl.entry, fl.err
	case <-ctx.Done():
		t.leave(fl)
		return nil, ctx.Err()
	}
}

// leave takes a reader out of a flight that may have ended in the same moment.
func (t *table) leave(fl *flight) {
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
	if err != nil {
		if s.life.ctx.Err() != nil {
			err = fmt.Errorf("cache: blob %x: %w", key, ErrClosed)
		} else if !errors.Is(err, ErrUnwanted) {
			t.failed.Add(key, failure{err, time.Now()})
		}
		fl.err = err
	} else {
		fl.entry = t.insert(key, b)
		fl.entry.refs = fl.readers + 1 // one until here, given back below
	}
	joined := int64(fl.joined)
	close(fl.done)
	t.mu.Unlock()
	if fl.entry != nil {
		t.release(fl.entry)
	}
	if filled || err != nil {
		s.count.misses.Add(joined)
	} else {
		s.count.hits.Add(joined)
	}
}

// glance is load for what is on disk and needs no wait, by the first reader itself: no goroutine is begun for it. none says
// that there is nothing; when the reader's time ends on the way, or anything is odd, load does it again.
func (s *Store) glance(ctx context.Context, key digest, size int64) (b *blob, none bool) {
	if !s.table.tryFile() {
		return nil, false
	}
	b, err := s.onDisk(ctx, key, size)
	if b == nil {
		s.table.giveFile()
	}
	return b, b == nil && err == nil
}

// load finds the blob on disk, unless it is known that there is none, or fills it. The descriptor of the blob it returns is
// accounted for in the table.
func (s *Store) load(ctx context.Context, key digest, size int64, fill Fill, none bool) (b *blob, filled bool, err error) {
	if !none {
		if err := s.table.takeFile(ctx); err != nil {
			return nil, false, err
		}
		if b, err = s.onDisk(ctx, key, size); b != nil {
			return b, false, nil
		}
		s.table.giveFile()
		if err != nil {
			return nil, false, err
		}
	}
	if err := s.table.takeFill(ctx); err != nil {
		return nil, false, err
	}
	defer s.table.giveFill()
	if err := s.table.takeFile(ctx); err != nil {
		return nil, false, err
	}
	b, filled, err = s.fill(ctx, key, size, fill)
	if b == nil || b.fd < 0 {
		s.table.giveFile()
	}
	if filled {
		s.count.fills.Add(1)
		s.count.fillBytes.Add(b.size)
	}
	return b, filled, err
}

// onDisk looks for the blob in the cache folder. Trouble with the disk is a miss here: the fill meets it again.
func (s *Store) onDisk(ctx context.Context, key digest, size int64) (*blob, error) {
	f, err := s.disk.use()
	if err != nil {
		return nil, nil
	}
	defer s.disk.done(f)
	b, err := s.look(ctx, f, key, size)
	if isTrouble(err) {
		return nil, nil
	}
	return b, err
}
