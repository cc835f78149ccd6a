package layout

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Item is one file below blobs/, met by walk.
type Item struct {
	Dir  int // its directory, open during the visit
	Name string
	Key  Key
	Sums bool // a sidecar, not a blob
	Stat unix.Stat_t
}

// Walk visits every file below blobs/ that has a name of ours, one directory after the other, and
// tells of each directory. What vanishes meanwhile is left out.
func (f *Folder) Walk(
	ctx context.Context, enter func(*unix.Stat_t), visit func(*Item) error,
) error {
	for aa := range 256 {
		if err := ctx.Err(); err != nil {
			return err
		}
		fd, err := f.OpenShard(ctx, ShardName(byte(aa)))
		if err == unix.ENOENT || NotDir(err) {
			continue
		}
		if err != nil {
			return OnDisk("open shard", err)
		}
		err = walkShard(ctx, fd, byte(aa), enter, visit)
		if err != nil {
			return OnDisk("read shard", err)
		}
	}
	return nil
}

// walkShard visits one directory and closes it.
func walkShard(
	ctx context.Context, fd int, aa byte, enter func(*unix.Stat_t), visit func(*Item) error,
) error {
	d := os.NewFile(uintptr(fd), ShardName(aa))
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	enter(&st)
	for {
		names, err := d.Readdirnames(512)
		for _, name := range names {
			it := Item{Dir: fd, Name: name}
			base, isSums := strings.CutSuffix(name, SumsSuffix)
			var ok bool
			if it.Key, ok = ParseName(base); !ok || it.Key[0] != aa {
				continue
			}
			it.Sums = isSums
			err := unix.Fstatat(fd, name, &it.Stat, unix.AT_SYMLINK_NOFOLLOW)
			if err == unix.ENOENT {
				continue
			} else if err != nil {
				return err
			}
			if err := visit(&it); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
