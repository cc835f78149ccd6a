package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/harness"
)

// damage spoils a complete file of a cache. It excuses nothing: the blob is dropped and fetched again.
type damage struct {
	how   string
	spoil func(s *stage, name string, st step) (added int64, err error)
}

// Name is the kind of fault.
func (f damage) Name() string { return "cache file " + f.how }

// Strike spoils a blob and reads it by a process that has not seen it before. It acted when the
// file was found to be bad, by any process: a log line names it and the bad file is not there any
// more.
func (f damage) Strike(ctx context.Context, s *stage, st step) (bool, error) {
	m := s.mounts[st.rng.IntN(3)] // those of the shared cache: the other's disk has no room for a second copy
	path, name := m.cached(st)
	if path == "" {
		return false, nil
	}
	hex := filepath.Base(name)
	dropped := s.logged("a damaged blob is dropped", hex)
	added, err := f.spoil(s, name, st)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) { // evicted just now
			return false, nil
		}
		return false, fmt.Errorf("cannot spoil %s: %w", name, err)
	}
	m.store.extra.Add(added)
	start := time.Now()
	r := s.run(bound, append([]string{"cat", m.ref, path}, m.store.options...)...)
	if r.Code != 0 {
		s.judge(outcome{what: f.Name() + ": cat " + path, where: []string{m.store.name},
			err: fmt.Sprint("exit ", r.Code), detail: r.Stderr, start: start, end: time.Now()})
		return false, nil
	}
	want, err := os.ReadFile(m.picture.truth(path))
	if err != nil {
		return false, err
	}
	if !bytes.Equal([]byte(r.Stdout), want) {
		return false, fmt.Errorf("cat %s of %s: WRONG: %d bytes, want %d", path, m.name,
			len(r.Stdout), len(want))
	}
	if data, err := os.ReadFile(name); err == nil && harness.SHA256(data) != hex {
		return false, fmt.Errorf("cat %s read right, but %s is still bad (%v)", path, name, err)
	}
	seen := strings.Contains(r.Stderr, "damaged blob is dropped") ||
		s.logged("a damaged blob is dropped", hex) > dropped
	return seen || f.how == "deleted", nil
}

// cached chooses a file of the image that the cache holds.
func (m *mount) cached(st step) (path, name string) {
	for _, i := range st.rng.Perm(len(m.picture.files)) {
		path := m.picture.files[i]
		hex := m.picture.hex(path)
		name := filepath.Join(m.store.dir, "blobs", hex[:2], hex)
		if fi, err := os.Lstat(name); err == nil && fi.Mode().IsRegular() && fi.Size() > 0 {
			return path, name
		}
	}
	return "", ""
}

// graves is the number of replaced files that stay open: were the number of one given to a later
// file, a daemon could take that for one that it has hashed.
const graves = 50

// replace puts another file under a name, with the stamp of the old one, so that only its content tells.
func (s *stage) replace(name string, change func([]byte) []byte) error {
	old, err := os.Open(name)
	if err != nil {
		return err
	}
	s.graves = append(s.graves, old)
	if len(s.graves) > graves {
		s.graves[0].Close()
		s.graves = s.graves[1:]
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	fi, err := old.Stat()
	if err != nil {
		return err
	}
	other := filepath.Join(filepath.Dir(s.caches[0].dir), "spoiled")
	if err := os.WriteFile(other, change(bytes.Clone(data)), 0o400); err != nil {
		return err
	}
	if err := os.Chtimes(other, fi.ModTime(), fi.ModTime()); err != nil {
		return err
	}
	return exchange(other, name)
}

// exchange puts a file in the place of another, which goes. There is none when the other was
// evicted meanwhile: a file that was not filled would not be in the cache's count.
func exchange(other, name string) error {
	err := unix.Renameat2(unix.AT_FDCWD, other, unix.AT_FDCWD, name, unix.RENAME_EXCHANGE)
	return errors.Join(err, os.Remove(other))
}

// damages are the ways in which a file can be bad. All but the flipped byte happen in place, also
// under a reader.
func damages() []fault {
	list := []damage{
		{"truncated", func(_ *stage, name string, st step) (int64, error) {
			fi, err := os.Lstat(name)
			if err != nil {
				return 0, err
			}
			return 0, os.Truncate(name, st.rng.Int64N(fi.Size()))
		}},
		{"flipped", func(s *stage, name string, st step) (int64, error) {
			return 0, s.replace(name, func(b []byte) []byte {
				b[st.rng.IntN(len(b))] ^= 1 << st.rng.IntN(8)
				return b
			})
		}},
		{"lengthened", func(_ *stage, name string, st step) (int64, error) {
			f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return 0, err
			}
			defer f.Close()
			_, err = f.Write(bytes.Repeat([]byte("x"), 1+st.rng.IntN(5000)))
			return 8192, err
		}},
		{"a symlink", func(s *stage, name string, _ step) (int64, error) {
			link := filepath.Join(filepath.Dir(s.caches[0].dir), "link")
			if err := os.Symlink("/etc/hostname", link); err != nil {
				return 0, err
			}
			return 0, exchange(link, name)
		}},
		{"deleted", func(_ *stage, name string, _ step) (int64, error) { return 0, os.Remove(name) }},
		{"another user's", func(_ *stage, name string, _ step) (int64, error) { return 0, unix.Lchown(name, 12345, 12345) }},
		{"of another mode", func(s *stage, name string, _ step) (int64, error) {
			// A mode alone is no damage: the content is hashed again and the mode put right. So
			// both are wrong.
			if err := s.replace(name, func(b []byte) []byte { b[0] ^= 0xff; return b }); err != nil {
				return 0, err
			}
			return 0, os.Chmod(name, 0o644)
		}},
	}
	var faults []fault
	for _, d := range list {
		faults = append(faults, d)
	}
	return faults
}
