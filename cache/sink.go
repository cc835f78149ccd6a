package cache

import (
	"context"
	"fmt"

	"github.com/pfmount/pfmount/cache/disk"
	"github.com/pfmount/pfmount/cache/disk/layout"
)

// sink takes one fill and writes it to the partial file as it comes. When the disk fails while the
// blob may still fit into memory, it goes on there.
type sink struct {
	s    *Store
	ctx  context.Context // the Store's
	file *disk.Partial   // nil: there is none, and mem is used
	size int64           // what is expected, -1 unknown
	n    int64           // bytes taken
	over bool            // more than expected came
	mem  *memory
	err  error // the disk's, for good
}

// memory is a blob that the disk does not take.
type memory struct {
	data  []byte
	taken int64 // from the table's bound
	cause error // why it is here
	stale bool  // what was on disk is lost: the fill must start over
}

var _ Sink = (*sink)(nil)

func newSink(ctx context.Context, s *Store, p *disk.Partial, size int64) *sink {
	return &sink{s: s, ctx: ctx, file: p, size: size}
}

// run calls the fill until it is through: again when memory has to start over or descriptors ran
// out on the way.
func (k *sink) run(fill Fill) error {
	wait := layout.Backoff{Limit: k.s.lim.WaitLimit / 2}
	for {
		err := fill(k.ctx, k)
		if err == nil {
			err = k.finish()
		}
		switch {
		case k.err != nil:
			return k.err // the disk's own words, whatever the fill made of them
		case k.mem != nil && k.mem.stale:
			k.mem.stale = false
		case layout.Exhausted(err) && wait.Wait(k.ctx) == nil:
			k.s.table.shed(8)
		default:
			return err
		}
		if err := k.Reset(); err != nil {
			return err
		}
	}
}

// Write takes the next bytes. Its errors are final, but for too many bytes, which Reset takes back.
func (k *sink) Write(p []byte) (int, error) {
	if k.err != nil {
		return 0, k.err
	}
	if k.over || k.size >= 0 && int64(len(p)) > k.size-k.n {
		k.over = true
		return 0, fmt.Errorf("cache: %w: want %d bytes, got more", ErrSize, k.size)
	}
	if err := k.put(p); err != nil {
		return 0, err
	}
	k.n += int64(len(p))
	return len(p), nil
}

// put appends to the file or, when the disk fails, moves the blob to memory and goes on there.
func (k *sink) put(p []byte) error {
	if k.mem == nil {
		_, err := k.file.Write(p)
		if err == nil {
			return nil
		}
		if err := k.toMemory(err); err != nil {
			return err
		}
	}
	return k.keep(p)
}

// toMemory moves the blob to memory because of cause, which is its error when that cannot be.
func (k *sink) toMemory(cause error) error {
	n := k.size
	if n < 0 {
		n = k.s.lim.Small
	}
	if max(n, k.n) > k.s.lim.Small || !layout.IsError(cause) {
		k.err = cause
		return cause
	}
	taken := max(n, pageSize)
	if k.s.table.takeMemory(k.ctx, taken) != nil {
		k.err = cause
		return cause
	}
	k.s.dir.Warn("the cache's disk does not take blobs: "+
		"they are served from memory as far as they fit", cause)
	k.mem = &memory{data: make([]byte, 0, n), taken: taken, cause: cause}
	if k.file != nil && k.file.Written() > 0 {
		k.mem.data = k.mem.data[:k.file.Written()]
		k.mem.stale = k.file.ReadFull(k.mem.data) != nil
	}
	return nil
}

// keep appends to the blob in memory.
func (k *sink) keep(p []byte) error {
	m := k.mem
	if m.stale {
		return m.cause
	}
	if len(p) > cap(m.data)-len(m.data) { // of unknown size, and too large for memory
		k.err = m.cause
		return k.err
	}
	m.data = append(m.data, p...)
	return nil
}

// finish checks the length.
func (k *sink) finish() error {
	if k.err != nil {
		return k.err
	}
	if k.mem != nil && k.mem.stale {
		return k.mem.cause
	}
	if k.over || k.size >= 0 && k.n != k.size {
		return fmt.Errorf("cache: %w: want %d bytes, the fill wrote %d", ErrSize, k.size, k.n)
	}
	return nil
}

// Reset drops what was written, so that the fill starts over.
func (k *sink) Reset() error {
	if k.err != nil {
		return k.err
	}
	k.n, k.over = 0, false
	if k.mem != nil {
		k.mem.data = k.mem.data[:0]
		return nil
	}
	k.err = k.file.Reset()
	return k.err
}

// drop frees what a failed fill holds.
func (k *sink) drop() {
	if k.mem != nil {
		k.s.table.give(use{mem: k.mem.taken})
		k.mem = nil
	}
}

// memoryBlob makes a blob of what is in memory, in no more of it than needed.
func (k *sink) memoryBlob() *blob {
	m := k.mem
	if cap(m.data)-len(m.data) >= pageSize {
		m.data = append(make([]byte, 0, len(m.data)), m.data...)
	}
	k.s.table.give(use{mem: m.taken - charge(m.data)})
	return &blob{mem: m.data}
}
