package pfimg

import (
	"crypto/sha256"
	"fmt"

	"github.com/pfmount/pfmount/fetch/strictjson"
)

// entry is one element of "entries". Its fields come in any order, so all are kept until it ends.
type entry struct {
	path, target, kind []byte
	size               int64
	blob               Digest
	mode               uint16
	has                fields
}

// fields says which fields an entry has.
type fields uint8

const (
	hasPath fields = 1 << iota
	hasMode
	hasSize
	hasKind
	hasBlob
	hasTarget
)

// field reads a field of an entry; null is as good as absent.
func (e *entry) field(s *strictjson.Reader, name []byte) (err error) {
	var f fields
	switch string(name) {
	case "path":
		f = hasPath
	case "mode":
		f = hasMode
	case "size":
		f = hasSize
	case "kind":
		f = hasKind
	case "blob":
		f = hasBlob
	case "link_target":
		f = hasTarget
	default:
		return s.Skip()
	}
	if null, err := s.Null(); null || err != nil {
		return err
	}
	e.has |= f
	switch f {
	case hasPath:
		return keep(s, &e.path)
	case hasMode:
		return e.readMode(s)
	case hasSize:
		e.size, err = s.Number(maxSize)
	case hasKind:
		return keep(s, &e.kind)
	case hasBlob:
		e.blob, err = readDigest(s)
	case hasTarget:
		return keep(s, &e.target)
	}
	return err
}

func (e *entry) readMode(s *strictjson.Reader) error {
	text, err := s.Text()
	if err != nil {
		return err
	}
	var ok bool
	if e.mode, ok = parseMode(text); !ok {
		return s.Bad("%s: %s is no octal mode up to 07777", s.Where(), quote(text))
	}
	return nil
}

// keep reads a string and copies it.
func keep(s *strictjson.Reader, to *[]byte) error {
	text, err := s.Text()
	*to = append((*to)[:0], text...)
	return err
}

// what is the kind of the entry, 0 for an unknown one. Older images leave out the kind of files.
func (e *entry) what() Kind {
	switch {
	case e.has&hasKind == 0 || string(e.kind) == "file":
		return File
	case string(e.kind) == "dir":
		return Dir
	case string(e.kind) == "symlink":
		return Symlink
	}
	return 0
}

// check says what is wrong with the entry but its path, "" for nothing.
func (e *entry) check() string {
	switch e.what() {
	case Dir:
		return ""
	case File:
		if e.has&hasBlob == 0 {
			return "a file without blob"
		}
		if e.has&hasSize == 0 {
			return "a file without size"
		}
		return ""
	case Symlink:
		if e.has&hasTarget == 0 {
			return "a symlink without link_target"
		}
		if why := checkTarget(e.target); why != "" {
			return why
		}
		if e.has&hasSize != 0 && e.size != int64(len(e.target)) {
			return fmt.Sprintf("size %d, but link_target has %d bytes", e.size, len(e.target))
		}
		if e.has&hasBlob != 0 && e.blob != sha256.Sum256(e.target) {
			return "blob is not the digest of link_target"
		}
		return ""
	}
	return fmt.Sprintf("unknown kind %s", quote(e.kind))
}
