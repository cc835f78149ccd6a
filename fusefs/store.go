package fusefs

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// MaxStore is the most that is worth a Store, in bytes: the kernel reads ahead by itself in what is
// longer.
const MaxStore = requestSize

// ErrUnknown says that the kernel has not heard of a file, or has forgotten it. It is
// fs.ErrNotExist.
var ErrUnknown = fmt.Errorf("the kernel does not know the file: %w", fs.ErrNotExist)

// ErrReading says that a file is just being read, which brings it into the page cache.
var ErrReading = errors.New("the file is being read")

// Store puts the whole content of a file into the kernel's page cache (FUSE_NOTIFY_STORE), so that
// its next reader need not ask; ErrUnknown where there is no such file in the kernel. While a
// reader asks it is ErrReading: the kernel would make Store wait for the reader's answer, and not
// let go of it even if this process is killed (see mounts.Abort).
func (s *Server) Store(r pfimg.Row, data []byte) error {
	if s.fs.answering.has(r) {
		return ErrReading
	}
	return s.store(r, data)
}

func (s *Server) store(r pfimg.Row, data []byte) error {
	switch code := s.raw.InodeNotifyStoreCache(s.fs.node(r), 0, data); code {
	case fuse.OK:
		return nil
	case fuse.ENOENT:
		return ErrUnknown
	default:
		return fmt.Errorf("store in the page cache: %s", code)
	}
}

// answering are the files of the READs that are not answered yet.
type answering struct {
	mu   sync.Mutex // guards rows
	rows map[pfimg.Row]int
}

func (a *answering) begin(r pfimg.Row) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rows[r]++
}

func (a *answering) end(r pfimg.Row) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rows[r]--; a.rows[r] == 0 {
		delete(a.rows, r)
	}
}

func (a *answering) has(r pfimg.Row) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rows[r] > 0
}
