package fusefs

import (
	"math"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// Directory offsets: an entry's offset is its place in the listing plus one, at every mount of the
// image, so that telldir(3) and a listing that goes on after a long pause are right.
const (
	dots = 2             // "." and "..", ahead of the names
	last = math.MaxInt32 // no directory has as many entries: where a place no longer is one
)

// OpenDir has nothing to do. After one ENOSYS the kernel does not ask again and caches listings.
func (f *FS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// ReadDir lists names.
func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(e fuse.DirEntry, _ pfimg.Row, _ pfimg.Attr) bool {
		return out.AddDirEntry(e)
	})
}

// ReadDirPlus lists names with what Lookup would say of them. A file whose size is not known is
// listed by name alone (node id 0), so that a listing never fetches and never tells a size that is
// not one.
func (f *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(e fuse.DirEntry, r pfimg.Row, a pfimg.Attr) bool {
		o := out.AddDirLookupEntry(e)
		if o == nil {
			return false
		}
		if e.Off > dots && a.Size >= 0 {
			f.entry(r, a, o)
		}
		return true
	})
}

// addEntry adds an entry to a listing, if there is room.
type addEntry func(fuse.DirEntry, pfimg.Row, pfimg.Attr) bool

// list gives the entries from in.Offset on to add, until that has no more room.
func (f *FS) list(in *fuse.ReadIn, add addEntry) fuse.Status {
	dir := f.row(in.NodeId)
	if a, ok := f.ix.Attr(dir); !ok || a.Kind != pfimg.Dir {
		return fuse.ENOTDIR
	}
	if in.Offset > last {
		return fuse.OK
	}
	switch {
	case in.Offset == 0 && f.opts.Observer != nil:
		f.opts.Observer.Listing(dir, in.Pid)
	case in.Offset > 0 && f.opts.Observer != nil:
		f.opts.Observer.Listed(dir)
	}
	for i := int(in.Offset); ; i++ {
		r, name, ok := f.at(dir, i)
		if !ok {
			return fuse.OK
		}
		a, ok := f.ix.Attr(r)
		if !ok {
			return fuse.Status(syscall.EIO)
		}
		e := fuse.DirEntry{Name: name, Ino: uint64(r), Off: uint64(i) + 1, Mode: fileType(a.Kind)}
		if !add(e, r, a) {
			return fuse.OK
		}
	}
}

// at returns what stands at place i of dir's listing.
func (f *FS) at(dir pfimg.Row, i int) (pfimg.Row, string, bool) {
	switch i {
	case 0:
		return dir, ".", true
	case 1:
		return f.parent(dir), "..", true
	}
	return f.ix.Child(dir, i-dots)
}
