package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// large matches uploads of more than 16 MiB by one request.
func large(x *faultreg.Exchange) bool {
	n, _ := strconv.Atoi(x.Header.Get("Content-Length"))
	return n > 16<<20
}

// TestPushInPieces has a registry, or what stands before it, that takes no request of more than 16
// MiB, and breaks some of those that are shorter: the blob arrives in pieces.
func TestPushInPieces(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	spec := imgbuild.Spec{Entries: []imgbuild.Entry{
		imgbuild.File("large", "0644", imgbuild.Noise{Seed: 1, Len: 33 << 20}),
		imgbuild.File("small", "0644", imgbuild.Text("small\n")),
	}}
	folder := e.MakeDir("folder")
	if err := harness.Build(t, spec).WriteFolder(folder); err != nil {
		t.Fatal(err)
	}
	srv := e.Registry()
	put := faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut, Where: large}
	patch := faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPatch}
	status := faultreg.Match{Kind: faultreg.Upload, Method: http.MethodGet}
	for _, tt := range []struct {
		name          string
		match         faultreg.Match // beside put
		fault         faultreg.Fault
		patches, asks int
	}{
		{"as they are", faultreg.Match{Kind: faultreg.Ping}, faultreg.Drop(), 3, 0},
		{"one is dropped", faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPatch, From: 2,
			Count: 1}, faultreg.Drop(), 4, 1},
		{"two are refused for now", faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPatch,
			From: 2, Count: 2}, faultreg.Answer(503, ""), 5, 2},
	} {
		dst := srv.Ref("team/"+strings.ReplaceAll(tt.name, " ", "-"), "v1")
		srv.Reset()
		whole := srv.On(put, faultreg.Answer(413, "too much"))
		other := srv.On(tt.match, tt.fault)
		carry(t, e, "push", "file://"+folder, dst)
		if n, asks := srv.Count(patch), srv.Count(status); n != tt.patches || asks != tt.asks ||
			whole.Hits() != 1 {
			t.Errorf("%s: %d PATCH, %d GET of uploads, %d refused, want %d, %d, 1", tt.name, n,
				asks, whole.Hits(), tt.patches, tt.asks)
		}
		whole.Off()
		other.Off()
		e.Run("verify", dst).Want(t, 0)
	}
}

// TestPushInPiecesFromWhereItBroke cuts a piece in its middle at a real registry, which keeps what
// came or forgets the upload: either way the blob arrives.
func TestPushInPiecesFromWhereItBroke(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	folder := e.MakeDir("folder")
	img := harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.File("large", "0644",
		imgbuild.Noise{Seed: 2, Len: 33 << 20})}})
	if err := img.WriteFolder(folder); err != nil {
		t.Fatal(err)
	}
	srv := e.Registry()
	srv.On(faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut, Where: large},
		faultreg.Answer(504, ""))
	srv.On(faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPatch, From: 2, Count: 1},
		func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Body = http.MaxBytesReader(nil, r.Body, 1<<20) // the registry sees it end early
			next.ServeHTTP(&nowhere{h: http.Header{}}, r)
			panic(http.ErrAbortHandler)
		})
	dst := srv.Ref("team/new", "v1")
	carry(t, e, "push", "file://"+folder, dst)
	e.Run("verify", dst).Want(t, 0)
}

// TestPushMountFrom pushes to a second repository of a registry what it has in a first: nothing is uploaded.
func TestPushMountFrom(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	srv := e.Registry()
	source := "oci-layout:" + harness.FixtureDir(t, "layout") + ":"
	carry(t, e, "push", source+"fork-a", srv.Ref("team/parent", "v1"))
	puts := faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut}
	for i, args := range [][]string{{"team/parent"}, {srv.Host() + "/team/parent"},
		{"team/none", "--mount-from", "team/parent"}} {
		dst := srv.Ref(fmt.Sprintf("team/child%d", i), "v1")
		srv.Reset()
		got := carry(t, e, append([]string{"push", source + "fork-a", dst, "--mount-from"}, args...)...)
		if n := srv.Count(puts); n != 0 || got.Copied != 0 || got.Skipped != got.Blobs {
			t.Errorf("%q: %d uploads, %+v, want none", args, n, got)
		}
		e.Run("verify", dst).Want(t, 0)
	}
	// A fork has blobs of its own: only those are uploaded.
	srv.Reset()
	got := carry(t, e, "push", source+"fork-b", srv.Ref("team/fork", "v1"), "--mount-from", "team/parent")
	if n := srv.Count(puts); n == 0 || n != got.Copied || got.Skipped == 0 {
		t.Errorf("fork: %d uploads, %+v, want its own blobs only", n, got)
	}
	e.Run("verify", srv.Ref("team/fork", "v1")).Want(t, 0)
	srv.Reset()
	dst := srv.Ref("team/new", "v1")
	e.Run("push", source+"basic", dst, "--mount-from", "Team/Parent").Want(t, 1, "lower case")
	e.Run("push", source+"basic", dst, "--mount-from", "other.example/a/b").Want(t, 1, "another registry")
	e.Run("push", source+"basic", dst, "--max-manifest-size", "10KiB").Want(t, 1, "93 blobs",
		"10 kib", "oci-layout:")
	e.Run("push", source+"basic", dst, "--max-manifest-size", "many").Want(t, 1, "--max-manifest-size")
	nothingSent(t, e)
}
