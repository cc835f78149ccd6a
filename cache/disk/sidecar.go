package disk

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// loadSums reads a blob's sidecar. Any error is nil: the blob is then hashed whole.
func (c *checker) loadSums(ctx context.Context, f *layout.Folder, key digest, size int64) []byte {
	fd, err := f.OpenBlob(ctx, layout.BlobPath(key)+layout.SumsSuffix)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	want := layout.SumsSize(size, c.d.lim.Chunk)
	if unix.Fstat(fd, &st) != nil || !ours(&st) || st.Size != want {
		return nil
	}
	data := make([]byte, st.Size) // a blob that is really there bounds it: 8 bytes a chunk
	if n, err := layout.ReadFull(fd, data, 0); err != nil || n < len(data) {
		return nil
	}
	return layout.DecodeSums(data, key, size, c.d.lim.Chunk)
}

// writeSums puts a sidecar, as encodeSums makes it, beside its blob, whole or not at all.
func writeSums(ctx context.Context, f *layout.Folder, dir int, key digest, data []byte) error {
	name := layout.BlobName(key) + layout.SumsSuffix
	fd, tmp, err := f.NewTmp(ctx, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = layout.WriteFull(fd, data, 0)
	if err == nil {
		err = unix.Renameat(f.Tmp, tmp, dir, name)
	}
	if err != nil {
		_ = layout.Remove(f.Tmp, tmp)
	}
	return layout.OnDisk("write sidecar", err)
}

// repairSums writes a sidecar that was missing or damaged. It is a help, so a failure is no error.
func (c *checker) repairSums(
	ctx context.Context, f *layout.Folder, key digest, size int64, sums []byte,
) {
	dir, err := f.OpenShard(ctx, layout.ShardName(key[0]))
	if err != nil {
		return
	}
	defer unix.Close(dir)
	data := layout.EncodeSums(key, size, c.d.lim.Chunk, sums)
	_, _ = c.d.quota.reserve(ctx, f, diskCost(int64(len(data))), func() error {
		return writeSums(ctx, f, dir, key, data)
	})
}
