package cache

import "golang.org/x/sys/unix"

// Room returns how many bytes fit before anything must be evicted, by an estimate; 0 when it cannot be told.
func (s *Store) Room() int64 {
	f, err := s.disk.use()
	if err != nil {
		return 0
	}
	defer s.disk.done(f)
	used, ok := estimateUsage(f)
	free, err := s.aboveFloor(f)
	if !ok || err != nil {
		return 0
	}
	return max(0, min(s.opt.Size-used, free))
}

// aboveFloor returns the free bytes of the file system beyond those that are to stay free; negative when too few are.
func (s *Store) aboveFloor(f *folder) (int64, error) {
	var st unix.Statfs_t
	if err := restart(func() error { return unix.Fstatfs(f.root, &st) }); err != nil {
		return 0, diskError("statfs", err)
	}
	size := int64(st.Frsize)
	if size == 0 {
		size = int64(st.Bsize)
	}
	return (int64(st.Bavail) - int64(max(s.opt.MinFree, 0)*float64(st.Blocks))) * size, nil
}

// estimateUsage reads the usage number through a descriptor of its own and without its lock.
func estimateUsage(f *folder) (used int64, ok bool) {
	fd, err := openState(f.root, "usage")
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var buf [usageSize]byte
	n, _ := preadFull(fd, buf[:], 0)
	used, _, ok = parseUsage(string(buf[:n]))
	return used, ok
}
