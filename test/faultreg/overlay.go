package faultreg

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/pfmount/pfmount/test/imgbuild"
)

// blobSource opens the bytes that are served under a digest, which need not be theirs.
type blobSource interface {
	Open() (io.ReadSeekCloser, error)
}

type rawManifest struct {
	mediaType, digest string
	raw               []byte
}

// overlay serves what was put as it stands, and leaves the rest to the registry.
type overlay struct {
	next http.Handler

	mu        sync.RWMutex
	blobs     map[string]blobSource  // by repo@digest
	manifests map[string]rawManifest // by repo:tag and repo@digest
}

// PutManifest serves raw bytes under a tag (and under their digest), unchecked; it gives the digest.
// A tag put again has moved.
func (s *Server) PutManifest(repo, tag, mediaType string, raw []byte) string {
	sum := sha256.Sum256(raw)
	m := rawManifest{mediaType, "sha256:" + hex.EncodeToString(sum[:]), raw}
	s.over.mu.Lock()
	defer s.over.mu.Unlock()
	s.over.manifests[repo+":"+tag] = m
	s.over.manifests[repo+"@"+m.digest] = m
	return m.digest
}

// PutBlob serves a blob's bytes under a digest, unchecked.
func (s *Server) PutBlob(repo, digest string, b imgbuild.Blob) {
	s.over.mu.Lock()
	defer s.over.mu.Unlock()
	s.over.blobs[repo+"@"+digest] = b
}

// Serve serves an image as it stands, unchecked and without uploads; it gives the manifest's digest.
func (s *Server) Serve(img *imgbuild.Image, repo, tag string) string {
	config := img.Config()
	s.PutBlob(repo, config.Digest, config)
	for _, l := range img.Layers {
		s.PutBlob(repo, l.Digest, l.Wire)
	}
	return s.PutManifest(repo, tag, imgbuild.ManifestType, img.OCIManifest())
}

// Forget removes what was put under a tag or digest of a repo: 404 from then on, unless it was pushed too.
func (s *Server) Forget(repo, ref string) {
	s.over.mu.Lock()
	defer s.over.mu.Unlock()
	delete(s.over.manifests, repo+":"+ref)
	delete(s.over.manifests, repo+"@"+ref)
	delete(s.over.blobs, repo+"@"+ref)
}

func (o *overlay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, repo, ref := parsePath(r.URL.Path)
	if r.Method != http.MethodGet && r.Method != http.MethodHead || kind != Manifest && kind != Blob {
		o.next.ServeHTTP(w, r)
		return
	}
	key := repo + ":" + ref
	if isDigest(ref) {
		key = repo + "@" + ref
	}
	o.mu.RLock()
	m, isManifest := o.manifests[key]
	b, isBlob := o.blobs[key]
	o.mu.RUnlock()
	h := w.Header()
	switch {
	case kind == Manifest && isManifest:
		h.Set("Content-Type", m.mediaType)
		h.Set("Docker-Content-Digest", m.digest)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.raw))
	case kind == Blob && isBlob:
		f, err := b.Open()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer f.Close()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Docker-Content-Digest", ref)
		http.ServeContent(w, r, "", time.Time{}, f)
	default:
		o.next.ServeHTTP(w, r)
	}
}
