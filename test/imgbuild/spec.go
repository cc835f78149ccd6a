package imgbuild

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// DefaultKey is the reference tool's public signing key (format: the signature section).
const DefaultKey = "processfork-default-self-sign-key.v1"

// DefaultCreated is the created_at of images that do not say one.
const DefaultCreated = "2026-05-05T14:11:00.123456789Z"

// Spec says what an image holds. The zero value is a valid image with an empty tree.
type Spec struct {
	Entries []Entry           // the tree, in the order given; Sort sorts as the reference does
	Seq     iter.Seq[Entry]   // further entries, walked once; for trees that should not stand in memory
	Tree    []byte            // raw world.fs in place of the one built; the entries' blobs are there all the same
	Pages   []Page            // the page table; Top["cache.manifest"] replaces the table and keeps the blobs
	Top     map[string][]byte // top-level blobs by manifest field, such as "model.diff"
	Created string            // created_at, verbatim; "": DefaultCreated
	Parents []string          // "sha256:…"
	Key     string            // signing key; "": DefaultKey
	Dir     string            // where compressed blobs over 1 MiB are kept; "": the system's temporary folder
}

// Entry is one tree entry. Everything is written as it stands, so hostile values are possible; Raw,
// when set, is the entry's JSON verbatim.
type Entry struct {
	Path    string
	Mode    string // "0644"; "" leaves the field out
	Kind    string // "file", "dir", "symlink"; "" leaves the field out
	Target  string // of a symlink
	Content Content
	Size    *int64 // what the entry says; nil: the truth
	Blob    string // what the entry says; "": the truth
	Raw     string
}

// Page is one KV page.
type Page struct{ K, V Content }

// File is an entry for a regular file.
func File(path, mode string, c Content) Entry {
	return Entry{Path: path, Mode: mode, Kind: "file", Content: c}
}

// Dir is an entry for a directory.
func Dir(path, mode string) Entry { return Entry{Path: path, Mode: mode, Kind: "dir"} }

// Symlink is an entry for a symbolic link, with the mode that the reference records.
func Symlink(path, target string) Entry {
	return Entry{Path: path, Mode: "0777", Kind: "symlink", Target: target, Content: Text(target)}
}

// Sort sorts entries part by part ("foo/bar" before "foo-bar"), the reference's order.
func Sort(entries []Entry) []Entry {
	slices.SortStableFunc(entries, func(a, b Entry) int {
		return slices.Compare(strings.Split(a.Path, "/"), strings.Split(b.Path, "/"))
	})
	return entries
}

// all walks the entries of both kinds.
func (s *Spec) all() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, e := range s.Entries {
			if !yield(e) {
				return
			}
		}
		if s.Seq != nil {
			s.Seq(yield)
		}
	}
}

// Folders yields dirs folders "dNNNN" with files files "fNNNN.txt" each, with each folder before its
// files. Content comes from body, given the file's running number: many numbers may share a content,
// and so a blob.
func Folders(dirs, files int, body func(n int) Content) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for d := range dirs {
			if !yield(Dir(fmt.Sprintf("d%04d", d), "0755")) {
				return
			}
			for f := range files {
				e := File(fmt.Sprintf("d%04d/f%04d.txt", d, f), "0644", body(d*files+f))
				if !yield(e) {
					return
				}
			}
		}
	}
}

// Numbered is the usual body for Folders: a short text that differs for each number modulo distinct.
func Numbered(distinct int) func(n int) Content {
	return func(n int) Content { return Text(fmt.Sprintf("this is file number %d\n", n%distinct)) }
}
