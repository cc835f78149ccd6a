package fusefs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

const (
	forever   = 100 * 365 * 24 * 3600 // validity of names and attributes, in seconds
	blockSize = 4096                  // bytes; of statfs(2), and the preferred read size of stat(2)
	maxName   = 255                   // bytes, NAME_MAX
)

// stamp returns the attributes that all rows share.
func stamp(created time.Time, o Options) fuse.Attr {
	a := fuse.Attr{Owner: fuse.Owner{Uid: o.UID, Gid: o.GID}, Blksize: blockSize}
	a.SetTimes(&created, &created, &created)
	return a
}

// attr fills out with the attributes of r. A size that is not known is shown as 0, and must not be
// believed for long.
func (f *FS) attr(r pfimg.Row, a pfimg.Attr, out *fuse.Attr) {
	*out = f.stamp
	out.Ino = uint64(r)
	out.Mode = a.Mode | fileType(a.Kind)
	out.Nlink = a.Nlink
	out.Size = uint64(max(a.Size, 0))
	out.Blocks = (out.Size + 511) / 512
}

// fileType returns the S_IFMT bits of k.
func fileType(k pfimg.Kind) uint32 {
	switch k {
	case pfimg.Dir:
		return syscall.S_IFDIR
	case pfimg.Symlink:
		return syscall.S_IFLNK
	}
	return syscall.S_IFREG
}

// entry fills out with r, which a directory names.
func (f *FS) entry(r pfimg.Row, a pfimg.Attr, out *fuse.EntryOut) {
	out.NodeId = f.node(r)
	out.EntryValid = forever
	if a.Size >= 0 {
		out.AttrValid = forever
	}
	f.attr(r, a, &out.Attr)
}

// Lookup finds a name in a directory. A name that is not there is answered as such for ever.
func (f *FS) Lookup(
	_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut,
) fuse.Status {
	if len(name) > maxName {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	dir := f.row(in.NodeId)
	var r pfimg.Row
	ok := true
	switch name {
	case ".":
		r, ok = dir, f.inside(dir)
	case "..":
		r, ok = f.parent(dir), f.inside(dir)
	default:
		r, ok = f.ix.Lookup(dir, name)
	}
	if !ok {
		out.EntryValid = forever
		return fuse.OK
	}
	a, ok := f.ix.Attr(r)
	if !ok {
		return fuse.ENOENT
	}
	f.entry(r, a, out)
	return fuse.OK
}

// parent returns the directory that holds dir; the root holds itself, whatever lies above it in the
// image.
func (f *FS) parent(dir pfimg.Row) pfimg.Row {
	if dir == f.opts.Root {
		return dir
	}
	return f.ix.Parent(dir)
}

// inside reports whether r is the root or below it. The kernel names rows of its own accord only
// for file handles (NFS, open_by_handle_at), and those can be forged.
func (f *FS) inside(r pfimg.Row) bool {
	for r != f.opts.Root {
		up := f.ix.Parent(r)
		if up == r || up == 0 {
			return false
		}
		r = up
	}
	return true
}

// GetAttr answers from memory, except for a file whose size is not known yet: that blob is opened,
// which fetches it.
func (f *FS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	r := f.row(in.NodeId)
	a, ok := f.ix.Attr(r)
	if !ok {
		return fuse.ENOENT
	}
	if a.Size < 0 {
		var code fuse.Status
		if a.Size, code = f.size(cancel, &in.InHeader, r); !code.Ok() {
			return code
		}
	}
	f.attr(r, a, &out.Attr)
	out.AttrValid = forever
	return fuse.OK
}

// size learns the size of r's blob by opening it and tells the index.
func (f *FS) size(cancel <-chan struct{}, in *fuse.InHeader, r pfimg.Row) (int64, fuse.Status) {
	d, n, ok := f.ix.Blob(r)
	if !ok {
		return 0, fuse.EIO
	}
	if n >= 0 { // another call was faster
		return n, fuse.OK
	}
	w := &waiter{drain: f.drain, cancel: cancel, pid: in.Pid, limit: f.opts.SizeWait}
	defer w.end()
	file, err := f.blobs.Open(w, d, -1)
	if err != nil {
		return 0, f.fail("getattr", r, d, w.explain(err))
	}
	n = file.Size()
	if err := file.Close(); err != nil {
		f.opts.Log.Debug("close a blob", "image", f.opts.Image, "digest", d.String(), "err", err)
	}
	f.ix.SetSize(d, n)
	return n, fuse.OK
}

// fail logs why a call on r failed and returns what its caller gets to see.
func (f *FS) fail(op string, r pfimg.Row, d pfimg.Digest, err error) fuse.Status {
	code := errno(err)
	f.failures.report(failure{op: op, row: r, path: f.ix.Path, digest: d, errno: code, err: err})
	return fuse.Status(code)
}

// Readlink returns a link's target as it is recorded.
func (f *FS) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	target, ok := f.ix.Link(f.row(in.NodeId))
	if !ok {
		return nil, fuse.EINVAL
	}
	return []byte(target), fuse.OK
}

// StatFs reports the size of the image, with nothing free.
func (f *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	s := f.ix.Stats()
	out.Bsize, out.Frsize, out.NameLen = blockSize, blockSize, maxName
	// df(1) leaves out what has no blocks, so an empty image has one.
	out.Blocks = max(1, (uint64(max(s.Bytes, 0))+blockSize-1)/blockSize)
	out.Files = uint64(s.Rows)
	return fuse.OK
}

// String names the file system in go-fuse's own messages.
func (f *FS) String() string { return mounts.Subtype }

// row returns the row behind a node id: the kernel knows the root, whichever directory that is, as
// node 1.
func (f *FS) row(node uint64) pfimg.Row {
	if node == fuse.FUSE_ROOT_ID {
		return f.opts.Root
	}
	return pfimg.Row(node)
}

// node is the reverse of row.
func (f *FS) node(r pfimg.Row) uint64 {
	if r == f.opts.Root {
		return fuse.FUSE_ROOT_ID
	}
	return uint64(r)
}
