package fusefs

import (
	"errors"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// MaxStore is the most that is worth a Store, in bytes: the kernel reads ahead by itself in what is longer.
const MaxStore = requestSize

// ErrUnknown says that the kernel has not heard of a file, or has forgotten it.
var ErrUnknown = errors.New("the kernel does not know the file")

// Store puts the whole content of a file into the kernel's page cache (FUSE_NOTIFY_STORE), so that whoever reads it next
// need not ask; ErrUnknown where there is no such file in the kernel. Readers who ask for the same pages meanwhile are
// answered first: Store must not be called by what they wait for.
func (s *Server) Store(r pfimg.Row, data []byte) error {
	switch code := s.raw.InodeNotifyStoreCache(s.fs.node(r), 0, data); code {
	case fuse.OK:
		return nil
	case fuse.ENOENT:
		return ErrUnknown
	default:
		return fmt.Errorf("store in the page cache: %s", code)
	}
}
