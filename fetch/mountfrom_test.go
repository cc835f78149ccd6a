package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

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
		{"all there", []string{"base"}, map[string]int{"base": 201}, whole,
			map[string]int{"base": whole}, 0, nil},
		{"nothing there", []string{"base"}, map[string]int{"base": 202}, whole,
			map[string]int{"base": whole}, whole, nil},
		{"in the second", []string{"base", "other"}, map[string]int{"base": 202, "other": 201},
			2 * whole, map[string]int{"base": whole, "other": whole}, 0, nil},
		{"unknown", []string{"base"}, map[string]int{"base": 404}, whole + 1,
			map[string]int{"base": 1}, whole, nil},
		{"forbidden", []string{"base"}, map[string]int{"base": 403}, whole + 1,
			map[string]int{"base": 1}, whole, nil},
		{"not supported, then there", []string{"base", "other"},
			map[string]int{"base": 405, "other": 201}, whole + 1,
			map[string]int{"base": 1, "other": whole}, 0, nil},
		{"down", []string{"base"}, map[string]int{"base": 500}, 5, map[string]int{"base": 5}, 0,
			registry.ErrRegistry},
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
				p, err := registry.NewUploader(s.Ref(t), o.Registry, tt.from, new(Meter))
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				blob := registry.Blob{What: "blob", Digest: artifact.DigestOf([]byte("x")), Size: 1,
					Open: func(context.Context) (io.ReadCloser, error) {
						return io.NopCloser(strings.NewReader("x")), nil
					}}
				if err := p.Upload(context.Background(), blob); !errors.Is(err, tt.err) {
					t.Errorf("got %v, want %v", err, tt.err)
				}
			} else if r, err := Push(context.Background(), c, s.Ref(t), o); err != nil ||
				r.Copied != tt.puts || r.Blobs != whole {
				t.Errorf("%+v, %v, want %d copied of %d", r, err, tt.puts, whole)
			}
			// Some are under way when the first answer makes a repository one that is not asked any
			// more.
			slack := 0
			if len(mounts) > 0 && tt.posts == whole+1 {
				slack = minWorkers - 1
			}
			for from, n := range tt.mounts {
				if mounts[from] < n || mounts[from] > n+slack {
					t.Errorf("%d mounts from %s, want %d", mounts[from], from, n)
				}
			}
			if n := s.Count("POST upload"); n < tt.posts || n > tt.posts+slack ||
				s.Count("PUT upload") != tt.puts {
				t.Errorf("%d POSTs and %d PUTs, want %d and %d", n, s.Count("PUT upload"), tt.posts, tt.puts)
			}
		})
	}
}
