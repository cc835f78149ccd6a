package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// Records are small named things beside the blobs, say what a reference meant when it was last verified. A record's
// file is named by the SHA-256 of its name and holds
//
//	8 bytes    "pfrec1\n" and a zero byte
//	32         SHA-256 of name, a zero byte and the data
//	…          the data
//
// so a record that a power cut tore, or that was renamed to another's name, is noticed and counts as absent.
const (
	recordMagic  = "pfrec1\n\x00"
	recordHeader = len(recordMagic) + sha256.Size
	maxRecord    = 1 << 20  // bytes of one
	maxRecords   = 1024     // how many
	maxRecordSum = 64 << 20 // bytes of all
)

func recordName(name string) string {
	return blobName(sha256.Sum256([]byte(name)))
}

func recordSum(name string, data []byte) digest {
	return sha256.Sum256(slices.Concat([]byte(name), []byte{0}, data))
}

// SetRecord keeps data, at most 1 MiB, under name. When there are more than 1,024 records or 64 MiB of them, those that
// were put longest ago go.
func (s *Store) SetRecord(name string, data []byte) error {
	if len(data) > maxRecord {
		return fmt.Errorf("cache: record %q: %d bytes: more than %d", name, len(data), maxRecord)
	}
	ctx := s.life.ctx
	f, err := s.disk.use()
	if err != nil {
		return fmt.Errorf("cache: record %q: %w", name, err)
	}
	defer s.disk.done(f)
	err = s.putRecord(ctx, f, name, data)
	if full(err) && s.makeRoom(ctx, diskCost(int64(len(data)))) {
		err = s.putRecord(ctx, f, name, data)
	}
	if vanished(err) {
		s.disk.renew(f)
	}
	if err != nil {
		return fmt.Errorf("cache: record %q: %w", name, err)
	}
	return nil
}

func (s *Store) putRecord(ctx context.Context, f *folder, name string, data []byte) error {
	dir, err := s.openat(ctx, f.root, "records", unix.O_RDONLY|unix.O_DIRECTORY, 0o700)
	if err != nil {
		return diskError("open records", err)
	}
	defer unix.Close(dir)
	final := recordName(name)
	fd, tmp, err := s.newTmp(ctx, f, final)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	done := false
	defer func() {
		if !done {
			_ = remove(f.tmp, tmp)
		}
	}()
	sum := recordSum(name, data)
	if _, err := pwriteFull(fd, slices.Concat([]byte(recordMagic), sum[:], data), 0); err != nil {
		return diskError("write record", err)
	}
	var old unix.Stat_t
	replaces := unix.Fstatat(dir, final, &old, unix.AT_SYMLINK_NOFOLLOW) == nil
	done, err = s.reserve(ctx, f, diskCost(int64(recordHeader+len(data))), func() error {
		return unix.Renameat(f.tmp, tmp, dir, final)
	})
	if err != nil || !done {
		return diskError("keep record", errOr(err, unix.ENOSPC))
	}
	if replaces { // the old one stays in the number until the next count: one in between may have missed it already
		return nil
	}
	return s.trimRecords(dir)
}

// Record returns the record of name, or an error that Is fs.ErrNotExist when there is none that is sound.
func (s *Store) Record(name string) ([]byte, error) {
	data, err := s.getRecord(s.life.ctx, name)
	if err != nil {
		return nil, fmt.Errorf("cache: record %q: %w", name, err)
	}
	return data, nil
}

func (s *Store) getRecord(ctx context.Context, name string) ([]byte, error) {
	f, err := s.disk.use()
	if err != nil {
		return nil, err
	}
	defer s.disk.done(f)
	dir, err := s.openat(ctx, f.root, "records", unix.O_RDONLY|unix.O_DIRECTORY, 0o700)
	if err != nil {
		return nil, diskError("open records", err)
	}
	defer unix.Close(dir)
	fd, err := s.openat(ctx, dir, recordName(name), unix.O_RDONLY, 0o400)
	if err == unix.ELOOP || err == unix.ENXIO {
		_ = remove(dir, recordName(name))
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, diskError("open record", err) // ENOENT is fs.ErrNotExist
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, diskError("stat record", err)
	}
	n := st.Size - int64(recordHeader)
	if s.ours(&st) && n >= 0 && n <= maxRecord {
		all := make([]byte, st.Size)
		got, err := preadFull(fd, all, 0)
		data := all[recordHeader:]
		sum := recordSum(name, data)
		if err == nil && got == len(all) && bytes.Equal(all[:recordHeader], slices.Concat([]byte(recordMagic), sum[:])) {
			return data, nil
		}
	}
	s.count.damaged.Add(1)
	_ = remove(dir, recordName(name))
	return nil, fmt.Errorf("%w: %w", ErrDamaged, fs.ErrNotExist)
}

// record is one file below records/.
type record struct {
	name  string
	mtime int64
	bytes int64 // on disk
	size  int64
}

func (s *Store) listRecords(dir int) (all []record, err error) {
	names, err := dirNames(dir, -1)
	if err != nil {
		return nil, diskError("list records", err)
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			all = append(all, record{name, st.Mtim.Nano(), blocks(&st), st.Size})
		}
	}
	return all, nil
}

// trimRecords removes the oldest beyond the limits.
func (s *Store) trimRecords(dir int) error {
	all, err := s.listRecords(dir)
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
		_ = remove(dir, r.name)
	}
	return nil
}

// eachRecord opens records/ and calls visit for what is in it.
func (s *Store) eachRecord(ctx context.Context, f *folder, visit func(dir int, r record)) error {
	dir, err := s.openat(ctx, f.root, "records", unix.O_RDONLY|unix.O_DIRECTORY, 0o700)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return diskError("open records", err)
	}
	defer unix.Close(dir)
	all, err := s.listRecords(dir)
	for _, r := range all {
		visit(dir, r)
	}
	return err
}

func (s *Store) recordBytes(ctx context.Context, f *folder) (n int64, err error) {
	err = s.eachRecord(ctx, f, func(_ int, r record) { n += r.bytes })
	return n, err
}

func (s *Store) clearRecords(ctx context.Context, f *folder) error {
	return s.eachRecord(ctx, f, func(dir int, r record) { _ = remove(dir, r.name) })
}
