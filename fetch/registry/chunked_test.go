package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// chunkRegistry takes uploads whole and in pieces, and notes every request.
type chunkRegistry struct {
	*registrytest.Destination
	least int64                                                           // OCI-Chunk-Min-Length; 0: none
	fault func(n int, w http.ResponseWriter, r *http.Request, u *up) bool // n-th request of its method, from 1; true: answered

	mu  sync.Mutex // guards the fields below
	log []string
	ups map[string]*up
	n   map[string]int
}

// up is an upload under way.
type up struct{ got []byte }

func newChunkRegistry(t *testing.T) *chunkRegistry {
	p := &chunkRegistry{Destination: registrytest.NewDestination(t), ups: map[string]*up{},
		n: map[string]int{}}
	p.Answer = p.serve
	return p
}

func (p *chunkRegistry) serve(w http.ResponseWriter, r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := r.Method
	if span := r.Header.Get("Content-Range"); span != "" {
		line += " " + span
	}
	p.log = append(p.log, line)
	p.n[r.Method]++
	if !strings.Contains(r.URL.Path, "/uploads/") {
		return p.fault != nil && p.fault(p.n[r.Method], w, r, nil)
	}
	if r.Method == http.MethodPost {
		name := fmt.Sprintf("/v2/a/blobs/uploads/%d", len(p.ups)+1)
		p.ups[name] = &up{}
		w.Header().Set("Location", name+"?step=0")
		if p.least > 0 {
			w.Header().Set("OCI-Chunk-Min-Length", fmt.Sprint(p.least))
		}
		w.WriteHeader(http.StatusAccepted)
		return true
	}
	u := p.ups[r.URL.Path]
	if p.fault != nil && p.fault(p.n[r.Method], w, r, u) {
		return true
	}
	if u == nil {
		w.WriteHeader(http.StatusNotFound)
		return true
	}
	w.Header().Set("Location", r.URL.Path+"?step="+fmt.Sprint(len(p.log)))
	switch r.Method {
	case http.MethodGet:
		u.where(w, http.StatusNoContent)
	case http.MethodPatch:
		if first, _, _ := strings.Cut(r.Header.Get("Content-Range"), "-"); first != fmt.Sprint(len(u.got)) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return true
		}
		b, _ := io.ReadAll(r.Body)
		u.got = append(u.got, b...)
		u.where(w, http.StatusAccepted)
	case http.MethodPut:
		b, _ := io.ReadAll(r.Body)
		b = append(u.got, b...)
		if registrytest.DigestOf(b) != r.URL.Query().Get("digest") {
			w.WriteHeader(http.StatusBadRequest)
			return true
		}
		delete(p.ups, r.URL.Path)
		p.Destination.Mu.Lock()
		p.Blobs[registrytest.DigestOf(b)] = b
		p.Destination.Mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	}
	return true
}

// where says how far the upload came.
func (u *up) where(w http.ResponseWriter, code int) {
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(u.got)-1)))
	w.WriteHeader(code)
}

// uploader is a push to the registry.
func (p *chunkRegistry) uploader(t *testing.T) (*Uploader, *progress) {
	t.Helper()
	return uploaderTo(t, p.Destination)
}

// whole refuses the first n whole uploads with a status; 0 resets the connection.
func whole(n, code int) func(int, http.ResponseWriter, *http.Request, *up) bool {
	return func(_ int, w http.ResponseWriter, r *http.Request, _ *up) bool {
		if r.Method != http.MethodPut || r.ContentLength == 0 {
			return false
		}
		if n--; n < 0 {
			return false
		}
		if code == 0 {
			reset(w)
		} else {
			w.WriteHeader(code)
		}
		return true
	}
}

// reset breaks the connection by RST.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
}

// oneWhole refuses whole uploads with 413 and gives the rest to then.
func oneWhole(then func(n int, w http.ResponseWriter, r *http.Request, u *up) bool) func(int, http.ResponseWriter, *http.Request, *up) bool {
	refuse := whole(1, http.StatusRequestEntityTooLarge)
	return func(n int, w http.ResponseWriter, r *http.Request, u *up) bool {
		return refuse(n, w, r, u) || then(n, w, r, u)
	}
}

func TestChunks(t *testing.T) {
	big := make([]byte, 2*chunkSize+1000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(big)
	small := big[:1000]
	const p1, p2, p3 = "PATCH 0-16777215", "PATCH 16777216-33554431", "PATCH 33554432-33555431"
	failed := []string{"HEAD", "POST", "PUT"}
	pieces := []string{"HEAD", "POST", p1, p2, p3, "PUT"}
	for _, tt := range []struct {
		name  string
		blob  []byte
		least int64
		fault func(n int, w http.ResponseWriter, r *http.Request, u *up) bool
		log   [][]string
		says  string // of the error; "": none
	}{
		{name: "taken whole", blob: big, log: [][]string{failed}},
		{name: "413", blob: big, fault: whole(1, 413), log: [][]string{failed, pieces}},
		{name: "408", blob: big, fault: whole(1, 408), log: [][]string{failed, pieces}},
		{name: "502", blob: big, fault: whole(1, 502), log: [][]string{failed, pieces}},
		{name: "504", blob: big, fault: whole(1, 504), log: [][]string{failed, pieces}},
		{name: "reset", blob: big, fault: whole(1, 0), log: [][]string{failed, pieces}},
		{name: "503 is about the moment", blob: big, fault: whole(1, 503), log: [][]string{failed, failed}},
		{name: "403 is final", blob: big, fault: whole(1, 403), log: [][]string{failed}, says: "403"},
		{name: "a short blob with 502", blob: small, fault: whole(1, 502), log: [][]string{failed, failed}},
		{name: "a short blob with 413", blob: small, fault: whole(1, 413), log: [][]string{failed},
			says: "client_max_body_size"},
		{
			name: "longer pieces wanted", blob: big, least: 20 << 20, fault: whole(1, 413),
			log: [][]string{failed, {"HEAD", "POST", "PATCH 0-20971519", "PATCH 20971520-33555431", "PUT"}},
		},
		{
			name: "a piece is cut in the middle", blob: big,
			fault: oneWhole(func(n int, w http.ResponseWriter, r *http.Request, u *up) bool {
				if r.Method != http.MethodPatch || n != 2 {
					return false
				}
				half := make([]byte, 1<<20)
				_, _ = io.ReadFull(r.Body, half)
				u.got = append(u.got, half...)
				reset(w)
				return true
			}),
			log: [][]string{failed, {"HEAD", "POST", p1, p2, "GET", "PATCH 17825792-33555431", "PUT"}},
		},
		{
			name: "the answer to a piece is lost", blob: big,
			fault: oneWhole(func(n int, w http.ResponseWriter, r *http.Request, u *up) bool {
				if r.Method != http.MethodPatch || n != 1 {
					return false
				}
				b, _ := io.ReadAll(r.Body)
				u.got = append(u.got, b...)
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}),
			log: [][]string{failed, {"HEAD", "POST", p1, "GET", p2, p3, "PUT"}},
		},
		{
			name: "nothing of the first piece arrived", blob: big,
			fault: oneWhole(func(n int, w http.ResponseWriter, r *http.Request, u *up) bool {
				if r.Method == http.MethodPatch && n == 1 {
					w.WriteHeader(http.StatusInternalServerError)
				}
				return r.Method == http.MethodPatch && n == 1
			}),
			log: [][]string{failed, {"HEAD", "POST", p1, "GET", p1, p2, p3, "PUT"}},
		},
		{
			name: "out of order, says the registry", blob: big,
			fault: oneWhole(func(n int, w http.ResponseWriter, r *http.Request, u *up) bool {
				if r.Method == http.MethodPatch && n == 3 {
					u.got = u.got[:chunkSize]
					w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				}
				return r.Method == http.MethodPatch && n == 3
			}),
			log: [][]string{failed, {"HEAD", "POST", p1, p2, p3, "GET", p2, p3, "PUT"}},
		},
		{
			name: "the upload is forgotten", blob: big,
			fault: oneWhole(func(n int, w http.ResponseWriter, r *http.Request, u *up) bool {
				if r.Method == http.MethodPatch && n == 2 {
					w.WriteHeader(http.StatusNotFound)
				}
				return r.Method == http.MethodPatch && n == 2
			}),
			log: [][]string{failed, {"HEAD", "POST", p1, p2}, pieces},
		},
		{
			name: "the question is refused", blob: big,
			fault: oneWhole(func(n int, w http.ResponseWriter, r *http.Request, u *up) bool {
				switch {
				case r.Method == http.MethodPatch && n == 2:
					reset(w)
				case r.Method == http.MethodGet:
					w.WriteHeader(http.StatusRequestedRangeNotSatisfiable) // what distribution says to an old state
				default:
					return false
				}
				return true
			}),
			log: [][]string{failed, {"HEAD", "POST", p1, p2, "GET"}, pieces},
		},
		{
			name: "the next piece is wanted elsewhere", blob: big,
			fault: oneWhole(func(n int, w http.ResponseWriter, r *http.Request, u *up) bool {
				if r.Method == http.MethodPatch {
					w.Header().Set("Location", "http://127.0.0.9:1/steal?sig=secret")
					w.WriteHeader(http.StatusAccepted)
				}
				return r.Method == http.MethodPatch
			}),
			log: [][]string{failed, {"HEAD", "POST", p1}}, says: "refused to upload to another host",
		},
		{
			name: "always forgotten", blob: big,
			fault: oneWhole(func(n int, w http.ResponseWriter, r *http.Request, u *up) bool {
				if r.Method == http.MethodPatch && n%2 == 0 {
					w.WriteHeader(http.StatusNotFound)
				}
				return r.Method == http.MethodPatch && n%2 == 0
			}),
			log: [][]string{failed, {"HEAD", "POST", p1, p2, "HEAD", "POST", p1, p2, "HEAD",
				"POST", p1, p2, "HEAD", "POST", p1, p2, "HEAD", "POST", p1, p2}},
			says: "after 5 tries",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newChunkRegistry(t)
			s.least, s.fault = tt.least, tt.fault
			p, sent := s.uploader(t)
			err := p.Upload(context.Background(), bytesUpload(tt.blob))
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			if want := slices.Concat(tt.log...); !slices.Equal(s.log, want) {
				t.Errorf("requests\n %q, want\n %q", s.log, want)
			}
			want := int64(len(tt.blob))
			if err != nil {
				want = 0
			} else if !bytes.Equal(s.Blobs[registrytest.DigestOf(tt.blob)], tt.blob) {
				t.Error("the blob did not arrive whole")
			}
			if n := sent.sent.Load(); n != want {
				t.Errorf("%d bytes counted, want %d", n, want)
			}
		})
	}
}

// TestChunksLastAnswer loses the answer to the PUT that ends an upload: the blob is found there,
// and not sent again.
func TestChunksLastAnswer(t *testing.T) {
	blob := bytes.Repeat([]byte("piece"), chunkSize/4)
	s := newChunkRegistry(t)
	s.fault = oneWhole(func(_ int, w http.ResponseWriter, r *http.Request, u *up) bool {
		if r.Method != http.MethodPut || u == nil {
			return false
		}
		s.Destination.Mu.Lock()
		s.Blobs[registrytest.DigestOf(u.got)] = u.got
		s.Destination.Mu.Unlock()
		delete(s.ups, r.URL.Path)
		w.WriteHeader(http.StatusGatewayTimeout)
		return true
	})
	p, sent := s.uploader(t)
	if err := p.Upload(context.Background(), bytesUpload(blob)); err != nil {
		t.Fatal(err)
	}
	want := []string{"HEAD", "POST", "PUT", "HEAD", "POST", "PATCH 0-16777215",
		"PATCH 16777216-20971519", "PUT", "GET", "HEAD"}
	if !slices.Equal(s.log, want) {
		t.Errorf("requests %q, want %q", s.log, want)
	}
	if n, bytes := sent.copied.Load(), sent.copiedBytes.Load(); n != 1 || bytes != int64(len(blob)) {
		t.Errorf("%d blobs of %d bytes copied, want one", n, bytes)
	}
}

// TestChunksAreRemembered has the second large blob go up in pieces at once, and a short one whole.
func TestChunksAreRemembered(t *testing.T) {
	s := newChunkRegistry(t)
	s.fault = whole(1, http.StatusRequestEntityTooLarge)
	p, _ := s.uploader(t)
	for _, b := range [][]byte{bytes.Repeat([]byte("a"), chunkSize+1),
		bytes.Repeat([]byte("b"), chunkSize+1), []byte("c")} {
		if err := p.Upload(context.Background(), bytesUpload(b)); err != nil {
			t.Fatal(err)
		}
	}
	last := []string{"HEAD", "POST", "PATCH 0-16777215", "PATCH 16777216-16777216", "PUT", "HEAD",
		"POST", "PUT"}
	if got := s.log[len(s.log)-len(last):]; !slices.Equal(got, last) {
		t.Errorf("the last requests %q, want %q", got, last)
	}
}

// TestChunksOfBrokenSource blames the source when its bytes cannot be read, and does not try again.
func TestChunksOfBrokenSource(t *testing.T) {
	s := newChunkRegistry(t)
	p, _ := s.uploader(t)
	p.chunked.Store(true)
	u := bytesUpload(bytes.Repeat([]byte("a"), chunkSize+1))
	gone := errors.New("the disk is gone")
	u.Open = func(context.Context) (io.ReadCloser, error) { return nil, gone }
	if err := p.Upload(context.Background(), u); !errors.Is(err, gone) || s.n[http.MethodPost] != 1 {
		t.Errorf("got %v after %q", err, s.log)
	}
}

func TestRangeEnd(t *testing.T) {
	for value, want := range map[string]int64{
		"0-0": 0, "0-1": 2, "0-16777215": chunkSize, "bytes=0-9": 10, "": -1, "1-5": -1, "0--5": -1,
		"0-": -1, "x-y": -1,
		"0-9223372036854775807": -1,
	} {
		n, said := rangeEnd(http.Header{"Range": {value}})
		if !said {
			n = -1
		}
		if n != want {
			t.Errorf("%q: got %d, want %d", value, n, want)
		}
	}
}
