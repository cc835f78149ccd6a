package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// tokens is a registry's front that demands a token and issues one to every client.
func tokens(registry http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			fmt.Fprint(w, `{"token":"good"}`)
		case r.Method == http.MethodGet && r.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="reg"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			registry.ServeHTTP(w, r)
		}
	})
}

// TestRounds: from start to the first byte of a file in three rounds, five with a token: the
// manifest; config, signature and all top-level blobs together; the file. Each request is sent
// once.
func TestRounds(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(http.Handler) http.Handler{"open": nil, "token": tokens} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			srv, err := faultreg.New(faultreg.Options{Wrap: wrap})
			if err != nil {
				t.Fatal(err)
			}
			e.UseRegistry(srv)
			img := harness.Fixture(t, "basic")
			ref, hold := e.Push(img), faultreg.NewHold()
			srv.Reset()
			srv.On(faultreg.Match{Kind: faultreg.Blob}, hold.Fault())
			dir, second := e.MountDir(), mountSet(img)
			p := e.Start(ref, dir)
			harness.Eventually(t, time.Minute, fmt.Sprintf("%d requests at once", len(second)), func() bool {
				return hold.Waiting() == len(second)
			})
			first := srv.Count(faultreg.Match{}) - len(second)
			if want := map[string]int{"open": 1, "token": 3}[name]; first != want {
				t.Errorf("%d requests before the second round, want %d", first, want)
			}
			hold.Release()
			p.Wait(harness.Limit).Want(t, 0)
			m := e.Mounted(ref, dir)
			if got := srv.Gets(faultreg.Blob); !maps.Equal(got, second) {
				t.Errorf("the mount asked for %v, want %v", got, second)
			}
			srv.Reset()
			m.Read("world/fs/README.md")
			if n := srv.Count(faultreg.Match{}); n != 1 {
				t.Errorf("the first read sent %d requests: %v", n, srv.Log())
			}
			m.Unmount()
		})
	}
}

// TestUnchangedTag: to mount a tag again transfers next to nothing, however long the manifest is.
func TestUnchangedTag(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref, srv := e.Push(largeDiff(t)), e.Registry()
	e.Mount(ref).Unmount()
	srv.Reset()
	e.Mount(ref).Unmount()
	if n := srv.Count(faultreg.Match{}); n != 1 {
		t.Errorf("the second mount sent %d requests: %v", n, srv.Log())
	}
	if n := srv.Count(faultreg.Match{Method: http.MethodHead, Kind: faultreg.Manifest}); n != 1 {
		t.Errorf("the second mount sent %d HEADs, want 1", n)
	}
	if n := srv.Sent(); n != 0 {
		t.Errorf("the second mount was sent %d bytes", n)
	}
}
