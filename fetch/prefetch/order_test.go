package prefetch_test

import (
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/prefetch"
)

// recordName is where the order of an image is.
func recordName(id pfimg.Digest) string { return "read order of " + id.String() }

// readOrder mounts an image, reads files and returns the order that is known after it.
func readOrder(image *fakeImage, records prefetch.Records, files ...int) []pfimg.Digest {
	m := newMount(image, func(_ *mount, c *prefetch.Config) { c.Records = records })
	for _, i := range files {
		m.Reading(image.rows[i], 1)
		m.Reading(image.rows[i], 2)
	}
	m.Close()
	return prefetch.Order(records, image.manifest, image.index)
}

// pick returns the blobs of files.
func (im *fakeImage) pick(files ...int) (list []pfimg.Digest) {
	for _, i := range files {
		list = append(list, im.blobs[i])
	}
	return list
}

// TestOrder: first reads are recorded once and in order; what an earlier mount recorded besides
// stays behind them.
func TestOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		image, records := newImage(t, 30, 0), &fakeRecords{texts: map[string][]byte{}}
		if got := readOrder(image, records); got != nil {
			t.Errorf("%d blobs are known before anything is read", len(got))
		}
		if got := readOrder(image, records, 9, 3, 27, 9); !slices.Equal(got, image.pick(9, 3, 27)) {
			t.Errorf("got %v, want the blobs of 9, 3, 27", got)
		}
		want := image.pick(20, 27, 9, 3)
		if got := readOrder(image, records, 20, 27); !slices.Equal(got, want) {
			t.Errorf("got %v, want the blobs of 20, 27, 9, 3", got)
		}
		if got := readOrder(image, records); !slices.Equal(got, want) {
			t.Error("a mount that reads nothing changes the order")
		}
		failing := failingRecords{records}
		if got := readOrder(image, failing, 1, 2); !slices.Equal(got, want) {
			t.Error("a record that cannot be written changes the order")
		}
	})
}

// failingRecords are records that cannot be written.
type failingRecords struct{ *fakeRecords }

func (failingRecords) Put(string, []byte) error { return errors.New("the disk is full") }

// TestOrderSaved: the order is saved while the mount lives, for five minutes from the first read.
func TestOrderSaved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		image, records := newImage(t, 30, 0), &fakeRecords{texts: map[string][]byte{}}
		m := newMount(image, func(_ *mount, c *prefetch.Config) { c.Records = records })
		order := func() []pfimg.Digest {
			return prefetch.Order(records, image.manifest, image.index)
		}
		time.Sleep(time.Hour) // the time counts from the first read
		m.read(1, 5, 6)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if got := order(); !slices.Equal(got, image.pick(5)) {
			t.Errorf("after 31 s the record has %d blobs, want 1", len(got))
		}
		time.Sleep(4 * time.Minute)
		m.read(1, 15, 16)
		time.Sleep(time.Minute)
		m.read(1, 25, 26)
		time.Sleep(time.Minute)
		m.Close()
		if got := order(); !slices.Equal(got, image.pick(5, 15)) {
			t.Errorf("the record has %d blobs, want those of five minutes, 2", len(got))
		}
	})
}

// TestOrderBound: no more than 4,096 blobs are recorded, and the newest come first.
func TestOrderBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const most = 4096
		image, records := newImage(t, most+20, 0), &fakeRecords{texts: map[string][]byte{}}
		files := make([]int, most+10)
		for i := range files {
			files[i] = i
		}
		if got := readOrder(image, records, files...); !slices.Equal(got, image.blobs[:most]) {
			t.Errorf("%d blobs are recorded, want the first %d", len(got), most)
		}
		want := append(image.pick(most+15), image.blobs[:most-1]...)
		if got := readOrder(image, records, most+15); !slices.Equal(got, want) {
			t.Errorf("%d blobs are recorded, want one more and the first %d", len(got), most-1)
		}
	})
}

// TestOrderFollowed: a mount fetches what earlier mounts of the image, or of a parent, read next.
func TestOrderFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		files := []int{40, 7, 33, 21, 2, 28, 11, 36, 14, 25}
		records := &fakeRecords{texts: map[string][]byte{}}
		parent := newImage(t, 50, 0)
		readOrder(parent, records, files...)
		other := pfimg.Digest(sha256.Sum256(nil))
		for _, image := range []*fakeImage{
			parent, newImage(t, 49, 0, other, parent.manifest.ID),
		} {
			m := newMount(image, func(m *mount, c *prefetch.Config) { c.Records = records })
			m.Reading(image.rows[files[0]], 1)
			synctest.Wait()
			if n := len(m.cache.fetched()); n != 0 {
				t.Errorf("%d blobs are fetched after one read", n)
			}
			m.Reading(image.rows[files[1]], 2) // another process goes on with the list
			synctest.Wait()
			want := sorted(image.pick(files[2:]...))
			if got := sorted(m.cache.fetched()); !slices.Equal(got, want) {
				t.Errorf("%d blobs are fetched, want the %d that come next", len(got), len(want))
			}
			m.Reading(image.rows[files[2]], 2)
			if s := m.Stats(); s.Hits != 1 {
				t.Errorf("%d hits, want 1", s.Hits)
			}
			m.Close()
		}
	})
}

// TestOrderOff: without records, and offline, nothing is recorded or followed.
func TestOrderOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		image, records := newImage(t, 30, 0), &fakeRecords{texts: map[string][]byte{}}
		for _, change := range []func(*mount, *prefetch.Config){
			nil,
			func(_ *mount, c *prefetch.Config) { c.Records, c.Online = records, false },
		} {
			m := newMount(image, change)
			m.read(1, 3, 5)
			m.Close()
		}
		if len(records.texts) != 0 {
			t.Errorf("%d records", len(records.texts))
		}
	})
}

// TestOrderDamaged: of a record that is none, or is cut, no more than what is whole is used; blobs
// that the image does not name are not.
func TestOrderDamaged(t *testing.T) {
	t.Parallel()
	const magic = "pforder1"
	image := newImage(t, 3, 0)
	one, foreign := image.blobs[1], pfimg.Digest{1}
	for text, want := range map[string]int{
		"": 0, "{}": 0, magic: 0,
		magic + string(one[:]):                       1,
		magic + string(one[:]) + "rest":              1,
		magic + string(one[:31]):                     0,
		magic + string(foreign[:]) + string(one[:]):  1,
		magic + string(foreign[:]):                   0,
		"pforder2" + string(one[:]) + string(one[:]): 0,
	} {
		name := recordName(image.manifest.ID)
		records := &fakeRecords{texts: map[string][]byte{name: []byte(text)}}
		if got := prefetch.Order(records, image.manifest, image.index); len(got) != want {
			t.Errorf("%q: %d blobs, want %d", text, len(got), want)
		}
	}
}
