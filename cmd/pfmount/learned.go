package main

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/fetch/pfimg"
)

// Bounds of what is learned from a mount.
const (
	learnBlobs   = 4096            // first reads of a blob that are noted
	learnFor     = 5 * time.Minute // since the first one
	learnSave    = 30 * time.Second
	learnParents = 4 // parents whose record is looked for
)

// learnedMagic begins a record: the digests of blobs follow, in the order in which they were first read.
const learnedMagic = "pforder1"

// learned is the order in which an image's blobs were first read in other mounts of it, or of an image that it came from.
// It is a hint: only blobs that the signed tree names are in it.
func (s *session) learned() []pfimg.Digest {
	m := s.image.Manifest()
	for _, id := range append([]pfimg.Digest{m.ID}, m.Parents[:min(len(m.Parents), learnParents)]...) {
		if list := loadLearned(s.store, id); len(list) > 0 {
			return slices.DeleteFunc(list, func(d pfimg.Digest) bool { _, ok := s.index.Size(d); return !ok })
		}
	}
	return nil
}

func learnedName(id pfimg.Digest) string { return "read order of " + id.String() }

func loadLearned(store *cache.Store, id pfimg.Digest) (list []pfimg.Digest) {
	data, err := store.Record(learnedName(id))
	if err != nil {
		return nil
	}
	data, ok := bytes.CutPrefix(data, []byte(learnedMagic))
	for ok && len(data) >= len(pfimg.Digest{}) && len(list) < learnBlobs {
		list = append(list, pfimg.Digest(data[:32]))
		data = data[32:]
	}
	return list
}

// learner notes the order of first reads.
type learner struct {
	mu    sync.Mutex // guards the fields below; readers note, so nothing is waited for with it held
	seen  map[pfimg.Digest]bool
	order []pfimg.Digest
	since time.Time
	saved int // how many of order the record holds
}

func newLearner() *learner { return &learner{seen: map[pfimg.Digest]bool{}} }

// note adds a blob that is read; false when nothing more is learned.
func (l *learner) note(d pfimg.Digest, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.order) == 0 {
		l.since = now
	}
	if len(l.order) >= learnBlobs || now.Sub(l.since) > learnFor {
		return false
	}
	if !l.seen[d] {
		l.seen[d] = true
		l.order = append(l.order, d)
	}
	return true
}

// save keeps what is new, and behind it what the record had beside that: a mount that reads little forgets nothing.
func (l *learner) save(store *cache.Store, id pfimg.Digest) error {
	l.mu.Lock()
	list, saved, seen := slices.Clone(l.order), l.saved, maps.Clone(l.seen)
	l.mu.Unlock()
	noted := len(list)
	if noted == saved {
		return nil
	}
	for _, d := range loadLearned(store, id) {
		if !seen[d] && len(list) < learnBlobs {
			list = append(list, d)
		}
	}
	data := []byte(learnedMagic)
	for _, d := range list {
		data = append(data, d[:]...)
	}
	if err := store.SetRecord(learnedName(id), data); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.saved = noted
	return nil
}
