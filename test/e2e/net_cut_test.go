package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// TestCutRows: bodies that end early, by FIN or RST, with and without a length, are gone on with; one that is
// always cut is EIO, never a short read, and nothing of it stays in the cache.
func TestCutRows(t *testing.T) {
	t.Parallel()
	for _, rst := range []bool{false, true} {
		for name, framing := range map[string]faultreg.Framing{"length": faultreg.WithLength,
			"chunked": faultreg.Chunked, "close": faultreg.UntilClose} {
			for _, ranges := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s rst=%v ranges=%v", name, rst, ranges), func(t *testing.T) {
					t.Parallel()
					e, img := harness.New(t, ""), failingImage(t)
					m := e.Mount(e.Push(img))
					srv, wire := e.Registry(), img.WireOf("world/fs/f")
					cut := func(percent float64) faultreg.Fault {
						f := faultreg.Cut{Percent: percent, RST: rst, Framing: framing}.Fault()
						if !ranges {
							f = faultreg.Chain(faultreg.IgnoreRange(), f)
						}
						return f
					}
					always := srv.On(faultreg.Match{Ref: wire}, cut(30))
					r := e.Sh(`cat "$1" | wc -c`, m.Path("world/fs/f"))
					if r.Code == 0 || !strings.Contains(r.Stderr, "Input/output error") || r.Stdout != "0\n" {
						t.Errorf("always cut: %v", r)
					}
					if n := always.Hits(); n > 5 {
						t.Errorf("always cut: %d requests", n)
					}
					always.Off()
					first := srv.On(faultreg.Match{Ref: wire, Count: 1}, cut(30))
					srv.On(faultreg.Match{Ref: wire, Count: 1}, cut(60))
					before := srv.Gets(faultreg.Blob)[wire]
					harness.Eventually(t, time.Minute, "a read after the second of a failed one",
						func() bool {
							data, err := m.ReadErr("world/fs/f")
							if err == nil && harness.SHA256(data) != img.Digest("world/fs/f")[7:] {
								t.Fatalf("%d other bytes", len(data))
							}
							return err == nil
						})
					if n := srv.Gets(faultreg.Blob)[wire] - before; n > 4 || first.Hits() != 1 {
						t.Errorf("%d requests, want at most 4", n)
					}
				})
			}
		}
	}
}

// TestLyingBodies: lengths, codings and ranges that are not what they say.
func TestLyingBodies(t *testing.T) {
	t.Parallel()
	part := func(rng string) faultreg.Fault {
		return faultreg.Headers(func(h http.Header, status int) {
			if status == http.StatusPartialContent {
				h.Set("Content-Range", rng)
			}
		})
	}
	half := faultreg.Cut{Percent: 50, RST: true}.Fault()
	tests := []struct {
		name   string
		faults []faultreg.Fault // the last one for ever
		code   int
		says   string
		most   int // requests
	}{
		{"a length that is too short", []faultreg.Fault{faultreg.Length(1000)}, 4, "the manifest says", 2},
		{"a length that is too long", []faultreg.Fault{faultreg.Length(1 << 40)}, 4, "the manifest says", 2},
		{"a longer body", []faultreg.Fault{faultreg.Append([]byte("more"), false)}, 4,
			"the manifest says", 2},
		{"a longer body without a length", []faultreg.Fault{faultreg.Append([]byte("more"), true)}, 0, "", 1},
		{"gzip", []faultreg.Fault{faultreg.With("Content-Encoding", "gzip")}, 5, "Content-Encoding gzip", 1},
		{"identity", []faultreg.Fault{faultreg.With("Content-Encoding", "identity")}, 0, "", 1},
		{"range of elsewhere", []faultreg.Fault{half, part("bytes 0-9/10")}, 0, "", 4},
		{"range of another total", []faultreg.Fault{half, part("bytes 1048576-2097151/9999999")}, 0, "", 4},
		{"range without sense", []faultreg.Fault{half, part("pages 3-4")}, 0, "", 4},
		{"416 once", []faultreg.Fault{half, faultreg.Answer(416, ""),
			faultreg.With("X-Nothing", "1")}, 0, "", 3},
		{"416 always", []faultreg.Fault{half, faultreg.Answer(416, "")}, 5, "416", 3},
		{"other bytes behind the cut", []faultreg.Fault{half, faultreg.Flip(2_000_000),
			faultreg.With("X-Nothing", "1")}, 0, "", 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, img := harness.New(t, ""), failingImage(t)
			ref, srv, wire := e.Push(img), e.Registry(), img.WireOf("world/fs/f")
			for i, f := range tt.faults {
				match := faultreg.Match{Ref: wire, Count: 1}
				if i == len(tt.faults)-1 {
					match.Count = 0
				}
				srv.On(match, f)
			}
			r := e.Sh(`"$1" cat "$2" world/fs/f | sha256sum`, e.Bin, ref).Want(t, tt.code, tt.says)
			if right := strings.HasPrefix(r.Stdout, img.Digest("world/fs/f")[7:]); right != (tt.code == 0) {
				t.Errorf("the right bytes: %v", r)
			}
			if n := srv.Gets(faultreg.Blob)[wire]; n > tt.most {
				t.Errorf("%d requests, want at most %d", n, tt.most)
			}
			srv.ClearRules()
			e.Sh(`"$1" cat "$2" world/fs/f | sha256sum | grep -q "^$3"`, e.Bin, ref,
				img.Digest("world/fs/f")[7:]).Want(t, 0)
		})
	}
}

// TestMovingTag: a tag that moves between two requests, and one that moves under a mount.
func TestMovingTag(t *testing.T) {
	t.Parallel()
	e, img, other := harness.New(t, ""), harness.Fixture(t, "basic"), harness.Fixture(t, "minimal")
	e.Push(img)
	e.Push(other)
	srv := e.Registry()
	srv.Serve(img, "team/app", "moving")
	ref := srv.Ref("team/app", "moving")
	srv.On(faultreg.Match{Kind: faultreg.Manifest, Count: 1},
		func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			faultreg.Cut{Percent: 50, RST: true}.Fault()(w, r, next)
			srv.Serve(other, "team/app", "moving")
		})
	m := e.Mount(ref)
	if got := m.Status().ManifestDigest; got != img.ManifestDigest() {
		t.Errorf("mounted %s, the tag was %s when it was asked for", got, img.ManifestDigest())
	}
	m.Compare("world/fs", harness.Want(t, "basic"))
	if got := srv.Gets(faultreg.Manifest)["moving"]; got != 1 {
		t.Errorf("the tag was asked for %d times", got)
	}
	e.Mount(ref).Compare("world/fs", harness.Want(t, "minimal"))
}
