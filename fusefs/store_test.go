package fusefs

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// TestStore: what was stored is read without a question, whole and to the byte, also at the end of a page; what the kernel
// does not know is an error, and afterwards all is as before.
func TestStore(t *testing.T) {
	contents := map[string]string{"one": "x", "page": strings.Repeat("0123456789abcdef", 256), "long": strings.Repeat("line\n", 20_001)}
	var entries []entry
	for name, content := range contents {
		entries = append(entries, file(name, content), file("unknown/"+name, content+"!"))
	}
	m := testMount(t, newImage(t, entries...), Options{})
	for name, content := range contents {
		if err := m.Store(m.find(t, "world/fs/unknown/"+name), []byte(content+"!")); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: stored for a file that the kernel has not heard of: %v", name, err)
		}
		m.lstat(t, "world/fs/"+name)
		if err := m.Store(m.find(t, "world/fs/"+name), []byte(content)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := m.read(t, "world/fs/"+name); got != content {
			t.Errorf("%s: %d bytes, not the %d that were stored", name, len(got), len(content))
		}
		if n := m.blobs.opened(content); n != 0 {
			t.Errorf("%s was asked for %d times", name, n)
		}
		if got := m.read(t, "world/fs/unknown/"+name); got != content+"!" {
			t.Errorf("unknown/%s: %d bytes", name, len(got))
		}
	}
	if err := m.Store(1<<31, []byte("x")); !errors.Is(err, ErrUnknown) {
		t.Errorf("stored for a row that there is not: %v", err)
	}
}

// TestStoreBesideRead: a file that a reader waits for can be stored meanwhile. The reader goes first, and gets his bytes.
func TestStoreBesideRead(t *testing.T) {
	content := strings.Repeat("waiting\n", 1000)
	m := testMount(t, newImage(t, file("f", content)), Options{})
	release := m.blobs.stall(t, content)
	read := make(chan string, 1)
	go func() {
		data, err := os.ReadFile(m.path("world/fs/f"))
		if err != nil {
			t.Error(err)
		}
		read <- string(data)
	}()
	m.blobs.wait(t, 1)
	stored := make(chan error, 1)
	go func() { stored <- m.Store(pfimg.Row(m.find(t, "world/fs/f")), []byte(content)) }()
	select {
	case err := <-stored:
		t.Errorf("stored before the reader had its answer: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	release()
	if got := <-read; got != content {
		t.Errorf("read %d bytes, want %d", len(got), len(content))
	}
	if err := <-stored; err != nil {
		t.Error(err)
	}
}
