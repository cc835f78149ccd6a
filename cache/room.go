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
	var st unix.Statfs_t
	if !ok || restart(func() error { return unix.Fstatfs(f.root, &st) }) != nil {
		return 0
	}
	free := int64(st.Bavail)*int64(st.Bsize) - int64(max(s.opt.MinFree, 0)*float64(st.Blocks))*int64(st.Frsize)
	return max(0, min(s.opt.Size-used, free))
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
