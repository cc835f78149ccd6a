package fusefs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// calls is an Observer that writes down what it is told.
type calls struct {
	mu   sync.Mutex // guards list
	list []string
}

func (c *calls) add(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, fmt.Sprintf(format, args...))
}

func (c *calls) Reading(r pfimg.Row, pid uint32)   { c.add("reading %d, known %v", r, pid != 0) }
func (c *calls) Listing(dir pfimg.Row, pid uint32) { c.add("listing %d, known %v", dir, pid != 0) }
func (c *calls) Listed(dir pfimg.Row)              { c.add("listed %d", dir) }

// TestObserver: an observer is told of a listing when it begins and when it ends, and of a read of
// a blob before the blob is opened; of what is answered from memory it is not.
func TestObserver(t *testing.T) {
	observer := new(calls)
	im := newImage(t, dir("d"), file("d/a", "content of a"), link("d/l", "a"))
	m := testMount(t, im, Options{Observer: observer})
	if _, err := os.ReadDir(m.path("world/fs/d")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Readlink(filepath.Join(m.path("world/fs/d"), "l")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(m.path("world/fs/d/a")); err != nil {
		t.Fatal(err)
	}
	d, a := im.find(t, "world/fs/d"), im.find(t, "world/fs/d/a")
	want := []string{
		fmt.Sprintf("listing %d, known true", d), fmt.Sprintf("listed %d", d),
		fmt.Sprintf("reading %d, known true", a),
	}
	observer.mu.Lock()
	defer observer.mu.Unlock()
	if got := slices.Compact(observer.list); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}
