package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

func TestRecords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir})
	for name, data := range map[string][]byte{
		"":                           []byte("of no name"),
		"localhost:5000/a/b:tag":     []byte("manifest"),
		"../../outside":              []byte("stays inside"),
		"empty":                      {},
		"a\x00b\n":                   []byte("odd"),
		string(make([]byte, 10_000)): bytes.Repeat([]byte("x"), 1<<20),
	} {
		for _, content := range [][]byte{[]byte("first"), data} {
			must(t, s.SetRecord(name, content))
		}
		got, err := testStore(t, Options{Dir: dir}).Record(name)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("Record(%.20q) = %.20q, %v", name, got, err)
		}
	}
	if _, err := s.Record("unknown"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unknown record: %v", err)
	}
	if err := s.SetRecord("large", make([]byte, 1<<20+1)); err == nil {
		t.Error("a record over the limit was taken")
	}
	audit(t, dir)
}

func TestRecordDamage(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(t *testing.T, path string){
		"short":   func(t *testing.T, path string) { cut(t, path, 45) },
		"empty":   func(t *testing.T, path string) { cut(t, path, 0) },
		"long":    func(t *testing.T, path string) { cut(t, path, 5<<20) },
		"altered": func(t *testing.T, path string) { rewrite(t, path, 42, []byte("!")) },
		"symlink": func(t *testing.T, path string) {
			must(t, errors.Join(os.Rename(path, path+"x"), os.Symlink(path+"x", path)))
		},
		"another's": func(t *testing.T, path string) {
			must(t, os.Rename(filepath.Join(filepath.Dir(path), layout.RecordName("other")), path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := testStore(t, Options{Dir: dir})
			must(t, errors.Join(s.SetRecord("name", []byte("content")),
				s.SetRecord("other", []byte("content"))))
			do(t, filepath.Join(dir, "records", layout.RecordName("name")))
			if got, err := s.Record("name"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %q, %v", got, err)
			}
			must(t, s.SetRecord("name", []byte("again")))
			if got, err := s.Record("name"); err != nil || string(got) != "again" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// Records are bounded in number; those put longest ago go.
func TestRecordBound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir})
	old := filepath.Join(dir, "records")
	for i := range 1024 {
		path := filepath.Join(old, layout.RecordName(fmt.Sprint(i)))
		must(t, os.WriteFile(path, nil, 0o400))
		at := time.Now().Add(-time.Duration(1024-i) * time.Minute)
		must(t, os.Chtimes(path, at, at))
	}
	for i := range 3 {
		must(t, s.SetRecord(fmt.Sprint("new", i), []byte("x")))
	}
	names, err := os.ReadDir(old)
	if err != nil || len(names) != 1024 {
		t.Errorf("%d records, %v", len(names), err)
	}
	for i, want := range []bool{false, false, false, true} {
		if got := exists(filepath.Join(old, layout.RecordName(fmt.Sprint(i)))); got != want {
			t.Errorf("record %d is there: %v, want %v", i, got, want)
		}
	}
}

// Several Stores put one record at once: it is always one of theirs, whole.
func TestRecordRace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var wg sync.WaitGroup
	for w := range 4 {
		s := testStore(t, Options{Dir: dir})
		wg.Go(func() {
			for range 30 {
				if err := s.SetRecord("name", bytes.Repeat([]byte{byte(w)}, 1000)); err != nil {
					t.Error(err)
				}
				got, err := s.Record("name")
				if err != nil || len(got) != 1000 || !bytes.Equal(got, bytes.Repeat(got[:1], 1000)) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
	audit(t, dir)
}
