package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

func TestNewParents(t *testing.T) {
	dst := registrytest.Ref(t, "reg.example/team/app:v1")
	for _, tt := range []struct {
		source string
		names  []string
		want   []string
		fails  bool
	}{
		{source: "oci-layout:x"},
		{source: "oci-layout:x", names: []string{"team/base"}, want: []string{"team/base"}},
		{source: "oci-layout:x", names: []string{"reg.example/team/base", "team/base", "a"}, want: []string{"team/base", "a"}},
		{source: "oci-layout:x", names: []string{"team/app"}},
		{source: "reg.example/z/source:v1", names: []string{"a"}, want: []string{"z/source", "a"}},
		{source: "other.example/z/source:v1"},
		{source: "oci-layout:x", names: []string{"Team/Base"}, fails: true},
		{source: "oci-layout:x", names: []string{""}, fails: true},
		{source: "oci-layout:x", names: []string{"a?from=b"}, fails: true},
		{source: "oci-layout:x", names: []string{"other.example/a/b"}, fails: true},
		{source: "oci-layout:x", names: []string{"a:v1"}, fails: true},
	} {
		p, err := newMountSources(dst, registrytest.Ref(t, tt.source), tt.names)
		if tt.fails != errors.Is(err, ref.ErrInvalid) || err == nil && !slices.Equal(p.list(), tt.want) {
			t.Errorf("%s, %q: got %v, %v, want %q", tt.source, tt.names, p, err, tt.want)
		}
	}
}

// TestPushMounts has the registry take blobs from other repositories of its own.
func TestPushMounts(t *testing.T) {
	c := openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:minimal")
	whole := 2 + c.Index.Stats().Blobs // config and signature
	for _, tt := range []struct {
		name   string
		from   []string
		answer map[string]int // status to a mount from a repository; 202: an upload
		posts  int            // all of them
		mounts map[string]int
		puts   int
		err    error
	}{
		{"none named", nil, nil, whole, nil, whole, nil},
		{"all there", []string{"base"}, map[string]int{"base": 201}, whole, map[string]int{"base": whole}, 0, nil},
		{"nothing there", []string{"base"}, map[string]int{"base": 202}, whole, map[string]int{"base": whole}, whole, nil},
		{"in the second", []string{"base", "other"}, map[string]int{"base": 202, "other": 201}, 2 * whole, map[string]int{"base": whole, "other": whole}, 0, nil},
		{"unknown", []string{"base"}, map[string]int{"base": 404}, whole + 1, map[string]int{"base": 1}, whole, nil},
		{"forbidden", []string{"base"}, map[string]int{"base": 403}, whole + 1, map[string]int{"base": 1}, whole, nil},
		{"not supported, then there", []string{"base", "other"}, map[string]int{"base": 405, "other": 201}, whole + 1, map[string]int{"base": 1, "other": whole}, 0, nil},
		{"down", []string{"base"}, map[string]int{"base": 500}, 5, map[string]int{"base": 5}, 0, ErrRegistry},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := registrytest.NewDestination(t)
			var mu sync.Mutex
			mounts := map[string]int{}
			s.Answer = func(w http.ResponseWriter, r *http.Request) bool {
				q := r.URL.Query()
				from := q.Get("from")
				if r.Method != http.MethodPost || from == "" {
					return false
				}
				mu.Lock()
				mounts[from]++
				mu.Unlock()
				if !strings.HasPrefix(r.URL.RawQuery, "mount=sha256:") || tt.answer[from] == 0 {
					t.Errorf("query %q", r.URL.RawQuery)
				}
				if tt.answer[from] == 202 {
					return false
				}
				w.WriteHeader(tt.answer[from])
				return true
			}
			o := PushOptions{Registry: testOptions().Registry, MountFrom: tt.from}
			o.Registry.MaxConns = 1
			if tt.err != nil {
				p, _ := (&pieceRegistry{Destination: s}).uploader(t)
				p.sources = &mountSources{repos: tt.from}
				if err := p.put(context.Background(), bytesUpload([]byte("x"))); !errors.Is(err, tt.err) {
					t.Errorf("got %v, want %v", err, tt.err)
				}
			} else if r, err := Push(context.Background(), c, s.Ref(t), o); err != nil || r.Copied != tt.puts || r.Blobs != whole {
				t.Errorf("%+v, %v, want %d copied of %d", r, err, tt.puts, whole)
			}
			// Some are under way when the first answer makes a repository one that is not asked any more.
			slack := 0
			if len(mounts) > 0 && tt.posts == whole+1 {
				slack = minWorkers - 1
			}
			for from, n := range tt.mounts {
				if mounts[from] < n || mounts[from] > n+slack {
					t.Errorf("%d mounts from %s, want %d", mounts[from], from, n)
				}
			}
			if n := s.Count("POST upload"); n < tt.posts || n > tt.posts+slack || s.Count("PUT upload") != tt.puts {
				t.Errorf("%d POSTs and %d PUTs, want %d and %d", n, s.Count("PUT upload"), tt.posts, tt.puts)
			}
		})
	}
}

// TestPushRenewsToken has the token end between POST and PUT: the body goes again, whole, under a new one, and the
// mount from another repository asks for the right to read there.
func TestPushRenewsToken(t *testing.T) {
	s := registrytest.NewDestination(t)
	var mu sync.Mutex
	valid, tokens := "", 0
	var scopes []string
	puts := map[string][]string{} // tokens of the PUTs, by query
	s.Answer = func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/token" {
			tokens++
			valid = fmt.Sprintf("token-%d", tokens)
			scopes = append(scopes, r.URL.Query()["scope"]...)
			fmt.Fprintf(w, `{"token":%q,"expires_in":300}`, valid)
			return true
		}
		got := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		upload := r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/")
		if upload {
			puts[r.URL.RawQuery] = append(puts[r.URL.RawQuery], got)
			if len(puts[r.URL.RawQuery]) == 1 {
				valid = "none" // it ended just now
			}
		}
		if got == "" || got != valid {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	p, sent := (&pieceRegistry{Destination: s}).uploader(t)
	p.c.write = true
	p.sources = &mountSources{repos: []string{"base"}}
	blob := []byte(strings.Repeat("0123456789", 100_000))
	if err := p.put(context.Background(), bytesUpload(blob)); err != nil {
		t.Fatal(err)
	}
	if got := s.Blobs[registrytest.DigestOf(blob)]; string(got) != string(blob) {
		t.Errorf("%d bytes arrived of %d", len(got), len(blob))
	}
	for query, used := range puts {
		if len(used) != 2 || used[0] == used[1] {
			t.Errorf("PUT %s with %q, want two tokens", query, used)
		}
	}
	if !slices.ContainsFunc(scopes, func(s string) bool { return strings.Contains(s, "repository:base:pull") }) {
		t.Errorf("scopes %q, want one to read base", scopes)
	}
	if n := sent.sent.Load(); n != int64(len(blob)) {
		t.Errorf("%d bytes counted of %d", n, len(blob))
	}
}
