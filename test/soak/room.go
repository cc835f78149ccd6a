package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// emptied is eviction by command: prune, or clear, which also forgets what is known of references.
type emptied struct{ command string }

// Name is the kind of fault.
func (f emptied) Name() string { return "cache " + f.command }

// Strike evicts from one of the caches. It acted when there was something to evict.
func (f emptied) Strike(_ context.Context, s *stage, st step) (bool, error) {
	c := s.caches[st.rng.IntN(len(s.caches))]
	args := []string{"cache", f.command}
	if f.command == "prune" {
		args = append(args, "--to", strconv.FormatInt(st.rng.Int64N(c.size/2), 10))
	}
	_, before := c.sum()
	if r := s.run(bound, append(args, c.flags()...)...); r.Code != 0 {
		return false, fmt.Errorf("%v", r)
	}
	return before > 0, nil
}

// fullDisk fills the small cache's disk with a balloon that takes whatever eviction gives back.
type fullDisk struct{}

// Name is the kind of fault.
func (fullDisk) Name() string { return "full disk" }

// Strike acted when a fill failed with ENOSPC or was served from memory. Blobs up to 8 MiB must
// read all the same.
func (f fullDisk) Strike(ctx context.Context, s *stage, st step) (bool, error) {
	c := s.caches[1]
	defer s.ledger.begin(f.Name(), c.name, "ENOSPC", "exit 7", "SIGBUS")()
	name := filepath.Join(filepath.Dir(c.dir), "balloon")
	balloon, err := os.Create(name)
	if err != nil {
		return false, err
	}
	defer balloon.Close()
	defer os.Remove(name)
	const text = "does not take blobs"
	warned, clean := s.logged(text), s.counts.get(cleanErrors+" ENOSPC")
	end := time.Now().Add(st.lasts + actLimit)
	acted := false
	for ctx.Err() == nil && time.Now().Before(end) && !(acted && time.Until(end) < actLimit) {
		if err := inflate(balloon); err != nil {
			return false, err
		}
		m := s.mounts[3]
		path := m.pick(st.rng)
		start := time.Now()
		r := s.run(bound, append([]string{"cat", m.ref, path}, c.options...)...)
		o := outcome{what: "cat " + path + " with a full disk", where: m.where(), start: start,
			end: time.Now(), detail: r.Stderr}
		if r.Code != 0 {
			o.err = fmt.Sprint("exit ", r.Code)
		}
		s.judge(o)
		acted = acted || r.Code == 7 || s.logged(text) > warned || s.counts.get(cleanErrors+" ENOSPC") > clean
	}
	return acted, nil
}

// inflate writes until there is no room.
func inflate(f *os.File) error {
	piece := make([]byte, 64<<10)
	for len(piece) >= 4096 {
		if _, err := f.Write(piece); errors.Is(err, syscall.ENOSPC) {
			piece = piece[:len(piece)/2]
		} else if err != nil {
			return err
		}
	}
	return nil
}

// localFaults are all faults on this machine.
func localFaults() []fault {
	return slices.Concat([]fault{
		emptied{"prune"}, emptied{"clear"}, fullDisk{}, ended{"kill -9", syscall.SIGKILL},
		ended{"SIGTERM", syscall.SIGTERM},
		busyUnmount{}, movedTag{},
	}, damages(), wrecks())
}
