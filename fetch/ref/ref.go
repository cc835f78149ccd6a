// Package ref is how images are named: in a registry, an OCI image layout, a folder or a local
// store. It promises that a Ref is whole and canonical, so that equal names compare equal. It reads
// nothing but whether a folder exists, and does not know whether the image does.
package ref

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/safetext"
)

// ErrInvalid says that a reference does not parse, or does not name one image: a mistake of the
// caller.
var ErrInvalid = errors.New("not an image reference")

// maxRef is the longest reference that is looked at, in bytes: PATH_MAX of Linux.
const maxRef = 4096

// Kind says where an image lives.
type Kind uint8

// The kinds of places.
const (
	Registry Kind = iota + 1 // an OCI registry: [oci://]host[:port]/repo[:tag][@sha256:…]
	Layout                   // an OCI image layout on disk: oci-layout:DIR[:tag][@sha256:…]
	Folder                   // a folder as the reference tool's file registry keeps it: file:///DIR
	Store                    // an image of a local ProcessFork store: store:CID
)

// String returns the kind's name for messages.
func (k Kind) String() string {
	switch k {
	case Registry:
		return "registry"
	case Layout:
		return "OCI image layout"
	case Folder:
		return "folder"
	case Store:
		return "store"
	}
	return "unknown"
}

// Ref names an image. Only Parse makes one; two references with the same canonical form are equal.
type Ref struct {
	kind Kind
	host string // registries: host[:port], lower case
	repo string // registries
	// registries and layouts; "" when none was given and a digest, or nothing, decides
	tag    string
	dir    string   // layouts, folders, stores
	digest [32]byte // registries and layouts: the OCI manifest's; stores: the image's id
	pinned bool     // digest is given
}

// Parse reads a reference as a user types it. A registry's host must look like one (a dot, a port,
// brackets or "localhost"), so that a forgotten host is an error and not a request to a stranger.
// For oci-layout:DIR:tag it looks whether DIR:tag exists as a folder, for store:CID at PF_STORE and
// HOME. The error is ErrInvalid with a hint.
func Parse(s string) (Ref, error) {
	if len(s) > maxRef {
		return Ref{}, badRef(s[:40]+"…", "it has %d bytes, the limit is %d", len(s), maxRef)
	}
	if s == "" {
		return Ref{}, badRef(s,
			"it is empty; write HOST/REPOSITORY:TAG, oci-layout:DIR, file:///DIR or store:CID")
	}
	control := func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }
	if i := strings.IndexFunc(s, control); i >= 0 {
		return Ref{}, badRef(s, "it holds a control character at byte %d", i)
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return parseRegistry(s, s)
	}
	switch scheme {
	case "oci":
		if !strings.HasPrefix(rest, "//") {
			return Ref{}, badRef(s,
				"write oci://HOST/REPOSITORY:TAG, or oci-layout:DIR for a layout on disk")
		}
		return parseRegistry(s, rest[2:])
	case "oci-layout":
		return parseLayout(s, rest)
	case "file":
		return parseFolder(s, rest)
	case "store":
		return parseStore(s, rest)
	}
	if strings.HasPrefix(rest, "//") {
		return Ref{}, badRef(s,
			"the scheme %q is not one of oci://, oci-layout:, file:///, store:; "+
				"a registry is written as HOST/REPOSITORY:TAG",
			scheme)
	}
	return parseRegistry(s, s)
}

func parseLayout(whole, dir string) (Ref, error) {
	if dir == "" || strings.HasPrefix(dir, "//") {
		return Ref{}, badRef(whole, "write oci-layout:DIR or oci-layout:DIR:TAG")
	}
	r := Ref{kind: Layout}
	if isDir(dir) {
		r.dir = filepath.Clean(dir)
		return r, nil
	}
	if i := strings.LastIndex(dir, "@sha256:"); i >= 0 {
		d, err := pfimg.ParseDigest(dir[i+1:])
		if err != nil {
			return Ref{}, badRef(whole, "the digest after @ is not sha256: and 64 hex digits")
		}
		r.digest, r.pinned, dir = d, true, dir[:i]
	}
	if i := strings.LastIndexByte(dir, ':'); i >= 0 && !isDir(dir) {
		r.tag, dir = dir[i+1:], dir[:i]
		if r.tag == "" || len(r.tag) > 255 {
			return Ref{}, badRef(whole, "the tag after the last ':' must have 1 to 255 bytes")
		}
	}
	if dir == "" {
		return Ref{}, badRef(whole, "it names no folder; write oci-layout:DIR:TAG")
	}
	r.dir = filepath.Clean(dir)
	return r, nil
}

func parseFolder(whole, rest string) (Ref, error) {
	path, ok := strings.CutPrefix(rest, "//")
	if !ok || !strings.HasPrefix(path, "/") {
		return Ref{}, badRef(whole, "write file:///DIR with three slashes and an absolute path")
	}
	return Ref{kind: Folder, dir: filepath.Clean(path)}, nil
}

func parseStore(whole, cid string) (Ref, error) {
	if len(cid) == 64 {
		cid = "sha256:" + cid
	} else if len(cid) > 7 && strings.EqualFold(cid[:7], "sha256:") {
		cid = "sha256:" + cid[7:]
	}
	d, err := pfimg.ParseDigest(cid)
	if err != nil {
		return Ref{}, badRef(whole,
			"write store:CID, the image's id of 64 hex digits, with or without sha256: before it")
	}
	dir := os.Getenv("PF_STORE")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return Ref{}, badRef(whole, "neither PF_STORE nor HOME says where the store is")
		}
		dir = filepath.Join(home, ".processfork")
	}
	return Ref{kind: Store, dir: filepath.Clean(dir), digest: d, pinned: true}, nil
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// badRef makes an ErrInvalid that quotes the reference, escaped.
func badRef(ref, format string, args ...any) error {
	if !utf8.ValidString(ref) || len(ref) > 300 {
		ref = safetext.Clip(ref, 300)
	}
	return fmt.Errorf("%q: %s: %w", ref, fmt.Sprintf(format, args...), ErrInvalid)
}

// ParseDest reads a local destination as a user types it: file:///DIR, oci-layout:DIR[:TAG], store:
// or store:CID. storeDir is the store's folder, "" for PF_STORE or the user's own. The error is
// ErrInvalid.
func ParseDest(s, storeDir string) (Ref, error) {
	typed := s
	if s == "store:" {
		s += strings.Repeat("0", 64)
	}
	r, err := Parse(s)
	if err != nil {
		return Ref{}, err
	}
	switch {
	case r.kind == Registry:
		return Ref{}, badRef(typed,
			"that is a registry; a destination is file:///DIR, oci-layout:DIR[:TAG] or store:")
	case r.kind == Layout && r.pinned:
		return Ref{}, badRef(typed, "a destination takes a tag, not a digest")
	case typed == "store:":
		r.digest, r.pinned = pfimg.Digest{}, false
	}
	return r.InStore(storeDir), nil
}

// InStore returns the reference of an image in the store at dir, in place of the one that PF_STORE
// names. References of other kinds, and an empty dir, change nothing.
func (r Ref) InStore(dir string) Ref {
	if r.kind == Store && dir != "" {
		r.dir = filepath.Clean(dir)
	}
	return r
}

// Kind says where the image lives.
func (r Ref) Kind() Kind { return r.kind }

// Host returns host[:port] of a registry in lower case, "" for other kinds.
func (r Ref) Host() string { return r.host }

// Repo returns the repository at a registry, "" for other kinds.
func (r Ref) Repo() string { return r.repo }

// Tag returns the tag in a registry or layout; "" when none was given and a digest, or nothing,
// decides.
func (r Ref) Tag() string { return r.tag }

// Pinned says that the reference holds a digest, which is then what it names, whatever its tag.
func (r Ref) Pinned() bool { return r.pinned }

// Digest returns the digest that the reference holds: of the OCI manifest, or in stores the image's
// id.
func (r Ref) Digest() [32]byte { return r.digest }

// At returns the reference of the image that has that digest in the same place.
func (r Ref) At(digest [32]byte) Ref {
	r.digest, r.pinned = digest, true
	return r
}

// Dir returns the local folder that the image is read from, "" for registries.
func (r Ref) Dir() string { return r.dir }

// SignKeyVar names the environment variable that the reference tool reads this place's signing key
// from, "" for stores, whose images have no signature.
func (r Ref) SignKeyVar() string {
	switch r.kind {
	case Registry, Layout:
		return "PF_OCI_REG_SIGN_KEY"
	case Folder:
		return "PF_FILE_REG_SIGN_KEY"
	}
	return ""
}

// Abs returns the reference with its folder made absolute, for a process that will change its
// working directory.
func (r Ref) Abs() (Ref, error) {
	if r.dir == "" {
		return r, nil
	}
	dir, err := filepath.Abs(r.dir)
	if err != nil {
		return Ref{}, fmt.Errorf("%s: %w", r, err)
	}
	r.dir = dir
	return r, nil
}

// String returns the canonical form. A registry's reference always has a tag or a digest there and
// no "oci://".
func (r Ref) String() string {
	var s string
	switch r.kind {
	case Registry:
		s = r.host + "/" + r.repo
	case Layout:
		s = "oci-layout:" + r.dir
	case Folder:
		return "file://" + r.dir
	case Store:
		return "store:" + pfimg.Digest(r.digest).Hex()
	default:
		return ""
	}
	if r.tag != "" {
		s += ":" + r.tag
	}
	if r.pinned {
		s += "@" + pfimg.Digest(r.digest).String()
	}
	return s
}
