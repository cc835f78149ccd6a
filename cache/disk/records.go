package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// Records are small named things beside the blobs, say what a reference meant when it was last
// verified. A record's file is named by the SHA-256 of its name and holds
//
//	8 bytes    "pfrec1\n" and a zero byte
//	32         SHA-256 of name, a zero byte and the data
//	…          the data
//
// so a record that a power cut tore, or that was renamed to another's name, is noticed and counts
// as absent.
const (
	recordMagic  = "pfrec1\n\x00"
	recordHeader = len(recordMagic) + sha256.Size
	maxRecord    = 1 << 20  // bytes of one
	maxRecords   = 1024     // how many
	maxRecordSum = 64 << 20 // bytes of all
)

func recordSum(name string, data []byte) digest {
	return sha256.Sum256(slices.Concat([]byte(name), []byte{0}, data))
}

func putRecord(ctx context.Context, d *Dir, f *layout.Folder, name string, data []byte) error {
	dir, err := f.OpenAt(ctx, f.Root, "records", unix.O_RDONLY|unix.O_DIRECTORY, 0o700)
	if err != nil {
		return layout.OnDisk("open records", err)
	}
	defer unix.Close(dir)
	final := layout.RecordName(name)
	fd, tmp, err := f.NewTmp(ctx, final)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	done := false
	defer func() {
		if !done {
			_ = layout.Remove(f.Tmp, tmp)
		}
	}()
	sum := recordSum(name, data)
	all := slices.Concat([]byte(recordMagic), sum[:], data)
	if _, err := layout.WriteFull(fd, all, 0); err != nil {
		return layout.OnDisk("write record", err)
	}
	var old unix.Stat_t
	replaces := unix.Fstatat(dir, final, &old, unix.AT_SYMLINK_NOFOLLOW) == nil
	done, err = d.quota.reserve(ctx, f, diskCost(int64(recordHeader+len(data))), func() error {
		return unix.Renameat(f.Tmp, tmp, dir, final)
	})
	if err != nil || !done {
		return layout.OnDisk("keep record", layout.ErrOr(err, unix.ENOSPC))
	}
	if replaces { // the old one stays in the number until the next count
		return nil
	}
	return trimRecords(dir)
}

func getRecord(ctx context.Context, d *Dir, f *layout.Folder, name string) ([]byte, error) {
	dir, err := f.OpenAt(ctx, f.Root, "records", unix.O_RDONLY|unix.O_DIRECTORY, 0o700)
	if err != nil {
		return nil, layout.OnDisk("open records", err)
	}
	defer unix.Close(dir)
	fd, err := f.OpenAt(ctx, dir, layout.RecordName(name), unix.O_RDONLY, 0o400)
	if err == unix.ELOOP || err == unix.ENXIO {
		_ = layout.Remove(dir, layout.RecordName(name))
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, layout.OnDisk("open record", err) // ENOENT is fs.ErrNotExist
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, layout.OnDisk("stat record", err)
	}
	n := st.Size - int64(recordHeader)
	if ours(&st) && n >= 0 && n <= maxRecord {
		all := make([]byte, st.Size)
		got, err := layout.ReadFull(fd, all, 0)
		data := all[recordHeader:]
		sum := recordSum(name, data)
		header := slices.Concat([]byte(recordMagic), sum[:])
		if err == nil && got == len(all) && bytes.Equal(all[:recordHeader], header) {
			return data, nil
		}
	}
	d.count.damaged.Add(1)
	_ = layout.Remove(dir, layout.RecordName(name))
	return nil, fmt.Errorf("%w: %w", ErrDamaged, fs.ErrNotExist)
}

// RecordData returns the data of each record of at most maxSize bytes below dir, unchecked, without
// opening the cache or creating it: for hints alone.
func RecordData(dir string, maxSize int64) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		records := filepath.Join(dir, "records")
		entries, err := os.ReadDir(records)
		if err != nil {
			return
		}
		for _, e := range entries {
			fi, err := e.Info()
			if err != nil || !fi.Mode().IsRegular() || fi.Size() > maxSize+int64(recordHeader) {
				continue
			}
			all, err := os.ReadFile(filepath.Join(records, e.Name()))
			if err != nil || len(all) < recordHeader ||
				string(all[:len(recordMagic)]) != recordMagic {
				continue
			}
			if !yield(all[recordHeader:]) {
				return
			}
		}
	}
}

// record is one file below records/.
type record struct {
	name  string
	mtime int64
	bytes int64 // on disk
	size  int64
}

func listRecords(dir int) (all []record, err error) {
	names, err := layout.DirNames(dir, -1)
	if err != nil {
		return nil, layout.OnDisk("list records", err)
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			all = append(all, record{name, st.Mtim.Nano(), layout.Blocks(&st), st.Size})
		}
	}
	return all, nil
}

// trimRecords removes the oldest beyond the limits.
func trimRecords(dir int) error {
	all, err := listRecords(dir)
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b record) int { return int(min(1, max(-1, b.mtime-a.mtime))) })
	keep, sum := 0, int64(0)
	for ; keep < min(len(all), maxRecords) && sum+all[keep].size <= maxRecordSum; keep++ {
		sum += all[keep].size
	}
	if keep == len(all) {
		return nil
	}
	for _, r := range all[keep:] {
		_ = layout.Remove(dir, r.name)
	}
	return nil
}

// eachRecord opens records/ and calls visit for what is in it.
func eachRecord(ctx context.Context, f *layout.Folder, visit func(dir int, r record)) error {
	dir, err := f.OpenAt(ctx, f.Root, "records", unix.O_RDONLY|unix.O_DIRECTORY, 0o700)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return layout.OnDisk("open records", err)
	}
	defer unix.Close(dir)
	all, err := listRecords(dir)
	for _, r := range all {
		visit(dir, r)
	}
	return err
}

func recordBytes(ctx context.Context, f *layout.Folder) (n int64, err error) {
	err = eachRecord(ctx, f, func(_ int, r record) { n += r.bytes })
	return n, err
}

func clearRecords(ctx context.Context, f *layout.Folder) error {
	return eachRecord(ctx, f, func(dir int, r record) { _ = layout.Remove(dir, r.name) })
}
