package prefetch

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// Bounds of a learned order.
const (
	orderBlobs   = 4096            // blobs in it
	orderFor     = 5 * time.Minute // recorded from the first read on
	orderSave    = 30 * time.Second
	orderParents = 4 // parents whose order is looked for
)

// orderMagic begins a record. The digests of blobs follow, in the order in which they were first
// read.
const orderMagic = "pforder1"

// Records keeps short texts by name.
type Records interface {
	// Get returns what was last Put under a name.
	Get(name string) ([]byte, error)
	Put(name string, data []byte) error
}

// Order returns the order in which the blobs of an image were first read in earlier mounts of it,
// or else of one of its parents. It is a hint: it holds only blobs that the index names.
func Order(records Records, m *pfimg.Manifest, ix *pfimg.Index) []pfimg.Digest {
	parents := m.Parents[:min(len(m.Parents), orderParents)]
	for _, id := range append([]pfimg.Digest{m.ID}, parents...) {
		if list := loadOrder(records, id); len(list) > 0 {
			return slices.DeleteFunc(list, func(d pfimg.Digest) bool {
				_, ok := ix.Size(d)
				return !ok
			})
		}
	}
	return nil
}

// orderName is the name of an image's record.
func orderName(id pfimg.Digest) string { return "read order of " + id.String() }

func loadOrder(records Records, id pfimg.Digest) (list []pfimg.Digest) {
	data, err := records.Get(orderName(id))
	if err != nil {
		return nil
	}
	data, ok := bytes.CutPrefix(data, []byte(orderMagic))
	for ok && len(data) >= len(pfimg.Digest{}) && len(list) < orderBlobs {
		list = append(list, pfimg.Digest(data[:32]))
		data = data[32:]
	}
	return list
}

// recorder records the order of first reads.
type recorder struct {
	mu    sync.Mutex // guards the fields below; readers call add, so it is held only briefly
	seen  map[pfimg.Digest]bool
	order []pfimg.Digest
	since time.Time
	saved int // how many of order the record holds
}

func newRecorder() *recorder { return &recorder{seen: make(map[pfimg.Digest]bool)} }

// add adds a blob that is read. It returns false once the order is complete.
func (r *recorder) add(d pfimg.Digest, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.order) == 0 {
		r.since = now
	}
	if len(r.order) >= orderBlobs || now.Sub(r.since) > orderFor {
		return false
	}
	if !r.seen[d] {
		r.seen[d] = true
		r.order = append(r.order, d)
	}
	return true
}

// save writes the order if it grew. What the record held besides stays behind it: a mount that
// reads little forgets nothing.
func (r *recorder) save(records Records, id pfimg.Digest) error {
	r.mu.Lock()
	list, saved, seen := slices.Clone(r.order), r.saved, maps.Clone(r.seen)
	r.mu.Unlock()
	recorded := len(list)
	if recorded == saved {
		return nil
	}
	for _, d := range loadOrder(records, id) {
		if !seen[d] && len(list) < orderBlobs {
			list = append(list, d)
		}
	}
	data := []byte(orderMagic)
	for _, d := range list {
		data = append(data, d[:]...)
	}
	if err := records.Put(orderName(id), data); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.saved = recorded
	return nil
}
