package mounts

// Table is a mount table. The order of its mounts says nothing of what lies over what.
type Table []Mount

// ByID returns the mount of that id, or nil.
func (t Table) ByID(id int) *Mount {
	for i := range t {
		if t[i].ID == id {
			return &t[i]
		}
	}
	return nil
}

// Find returns the mount m as the table shows it now, or nil when it is gone.
func (t Table) Find(m *Mount) *Mount {
	if now := t.ByID(m.ID); m.Same(now) {
		return now
	}
	return nil
}

// Top returns the mount whose root is seen at path, an absolute path without symbolic links, or nil
// when none is mounted there or what is mounted there cannot be seen.
func (t Table) Top(path string) *Mount {
	if m := t.Holding(path); m != nil && m.Point == path {
		return m
	}
	return nil
}

// outside is the parent of mounts whose parent the table does not show.
const outside = -1

// location is where a mount is mounted.
type location struct {
	parent int
	point  string
}

// Holding returns the mount that shows path, an absolute path without symbolic links; nil for the
// one of the root where the table leaves that out, in a chroot(2). It walks as the kernel does:
// after each name of the path it goes on in the mount on that spot, and in the one on that mount's
// root, to the last. What lies over the root itself is not seen from below it.
func (t Table) Holding(path string) *Mount {
	listed := make(map[int]bool, len(t))
	for i := range t {
		listed[t[i].ID] = true
	}
	on := make(map[location]*Mount, len(t))
	for i := range t {
		parent := t[i].Parent
		if !listed[parent] || parent == t[i].ID {
			parent = outside
		}
		on[location{parent, t[i].Point}] = &t[i]
	}
	id, at := outside, on[location{outside, "/"}]
	if at != nil {
		id = at.ID
	}
	for end := 2; end <= len(path); end++ {
		if end < len(path) && path[end] != '/' {
			continue
		}
		for range t { // a table that goes in circles ends, too
			next := on[location{id, path[:end]}]
			if next == nil {
				break
			}
			id, at = next.ID, next
		}
	}
	return at
}

// At returns the mount that is seen at dir, an absolute path without symbolic links, or nil.
func At(dir string) (*Mount, error) {
	table, err := Read()
	if err != nil {
		return nil, err
	}
	return table.Top(dir), nil
}
