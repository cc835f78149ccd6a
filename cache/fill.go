package cache

import (
	"context"

	"github.com/pfmount/pfmount/cache/disk"
	"github.com/pfmount/pfmount/cache/disk/layout"
)

// fill brings the blob of key: to disk if the disk takes it, else to memory. filled is false when
// another process was faster.
func (s *Store) fill(ctx context.Context, key digest, size int64, fill Fill) (_ *blob, filled bool, err error) {
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
