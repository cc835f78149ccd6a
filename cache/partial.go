package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// partial is a claimed file: this process alone fills its key.
type partial struct {
	f    *folder
	key  digest
	name string // its key's
	fd   int

	counted int64 // bytes that the usage number has of it
}

// claim makes this process the only one that fills key, by the lock on tmp/<hex>, and returns that file; or it
// returns the blob that another process has filled meanwhile. A dead holder's file is removed and started over.
func (s *Store) claim(ctx context.Context, f *folder, key digest, size int64) (p *partial, b *blob, err error) {
	name := blobName(key)
	for {
		s.lim.pause("claim")
		fd, err := s.openat(ctx, f.tmp, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o400)
		if err == unix.EEXIST {
			if err := s.await(ctx, f, key); err != nil {
				return nil, nil, err
			}
			continue
		}
		if err != nil {
			return nil, nil, diskError("create partial file", err)
		}
		s.lim.pause("lock")
		ok, err := lockNew(fd)
		if err != nil {
			err = diskError("lock partial file", err)
		} else if ok {
			s.lim.pause("look again")
			b, err = s.look(ctx, f, key, size) // it may have been finished before this file was made
			if b == nil && err == nil {
				return &partial{f: f, key: key, name: name, fd: fd}, nil, nil
			}
			_ = remove(f.tmp, name)
		}
		_ = unix.Close(fd)
		if b != nil || err != nil {
			return nil, b, err
		}
	}
}

// lockNew locks a file that this process has just made. It says no when one who cleans up was there first: only who
// holds the lock unlinks, so a locked file with a name is the one at the path. A file that the
// umask made unreadable gets its mode, so that the processes that wait for it can open it.
func lockNew(fd int) (bool, error) {
	if ok, err := tryLock(fd); !ok || err != nil {
		return false, err
	}
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && st.Mode&0o400 == 0 {
		_ = unix.Fchmod(fd, 0o400)
	}
	return st.Nlink > 0, err
}

// newTmp makes and locks a file in tmp/ under a name of its own, for what is no blob.
func (s *Store) newTmp(ctx context.Context, f *folder, base string) (fd int, name string, err error) {
	for range 10 {
		name = fmt.Sprintf("%s.%016x", base, rand.Uint64())
		fd, err = s.openat(ctx, f.tmp, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o400)
		if err != nil {
			return -1, "", diskError("create "+name, err)
		}
		ok, err := lockNew(fd)
		if ok && err == nil {
			return fd, name, nil
		}
		_ = unix.Close(fd)
		if err != nil {
			return -1, "", diskError("lock "+name, err)
		}
	}
	return -1, "", diskError("create "+name, errBusy)
}

// failedMode marks an unlinked partial file whose fill failed: its content is then the error's text.
const failedMode = 0o200

// await returns when the holder of key's partial file has finished, failed or died; the file is gone then. A fill that
// failed after this process waited for it for long is not tried again here: N processes in turn would make N times
// the wait. After a short wait it is, since the other process may have lacked only credentials. A holder that does not
// move, such as one that was stopped by Ctrl-Z, is trouble as with a disk: who waited goes on without the cache.
func (s *Store) await(ctx context.Context, f *folder, key digest) error {
	name := blobName(key)
	fd, err := s.openat(ctx, f.tmp, name, unix.O_RDONLY, 0o400)
	if notPartial(err) {
		err = errOr(remove(f.tmp, name), unix.ENOENT)
	}
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return diskError("open partial file", err)
	}
	defer unix.Close(fd)
	var wait backoff
	var moved time.Duration // when the file was seen to be written last
	for last := (unix.Timespec{}); ; {
		ok, err := tryLock(fd)
		if err != nil {
			return diskError("lock partial file", err)
		}
		if ok {
			break
		}
		if err := wait.wait(ctx); err != nil {
			return err
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mtim != last {
			last, moved = st.Mtim, wait.waited
		}
		if wait.waited-moved >= s.lim.stopped {
			return diskError("wait for another process, which holds the partial file and writes nothing", errBusy)
		}
	}
	same, err := current(fd, f.tmp, name)
	if err != nil {
		return diskError("stat partial file", err)
	}
	if same { // its holder died
		return diskError("remove partial file", remove(f.tmp, name))
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Nlink == 0 && st.Mode&0o777 == failedMode && wait.waited >= s.lim.patient {
		var text [512]byte
		n, _ := preadFull(fd, text[:], 0)
		return fmt.Errorf("cache: blob %x: %w: %s", key, ErrElsewhere, text[:n])
	}
	return nil
}

// notPartial reports whether the open of a name in tmp/ failed because it is no partial file of
// this user: a symlink, a socket, a file of another user.
func notPartial(err error) bool {
	return err == unix.ELOOP || err == unix.ENXIO || err == unix.EACCES
}

// abandon gives up a claimed file. A failure is left to those who wait with the file open; a fill that only ended
// with its Store, or because nobody waited, is theirs to start over. The name goes first: a kill in
// between leaves no name with the mode of a failed file, which its owner may not open.
func (p *partial) abandon(failed error) {
	err := remove(p.f.tmp, p.name) // a folder that is gone has no such name
	given := errors.Is(failed, context.Canceled) || errors.Is(failed, ErrUnwanted)
	if err == nil && failed != nil && !given {
		text := failed.Error()
		_ = unix.Ftruncate(p.fd, 0)
		_, _ = pwriteFull(p.fd, []byte(text[:min(len(text), 512)]), 0)
		_ = unix.Fchmod(p.fd, failedMode)
	}
	_ = unix.Close(p.fd)
}

// file is a partial file that grows.
type file struct {
	ctx    context.Context // the Store's; a wait for room on the disk ends with it
	s      *Store
	folder *folder
	fd     int
	size   int64 // what is expected, -1 unknown
	off    int64 // bytes written
	taken  int64 // of these and more bytes the room was taken ahead; size -1 only
	sums   *summer
}

// append writes p at the end. A full disk is answered by one eviction, unless room was to be made before.
func (f *file) append(p []byte) error {
	if err := f.room(len(p)); err != nil {
		return err
	}
	n, err := pwriteFull(f.fd, p, f.off)
	if full(err) && f.size >= 0 && f.s.makeRoom(f.ctx, max(f.size-f.off, 1<<20)) {
		var more int
		more, err = pwriteFull(f.fd, p[n:], f.off+int64(n))
		n += more
	}
	if err != nil {
		return diskError("write", err)
	}
	f.sums.write(p)
	f.off += int64(n)
	return nil
}

func (f *file) reset() error {
	f.sums.reset()
	if f.off == 0 {
		return nil
	}
	f.off = 0
	if f.taken > 0 {
		return nil // the room stays taken, and is written anew
	}
	return diskError("truncate", unix.Ftruncate(f.fd, 0))
}
