package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// tokened puts a token before everything at a registry. The token in force is number generation; a
// higher one makes those given out before expire.
func tokened(srv *faultreg.Server) (generation *atomic.Int32, tokens func() int) {
	generation = new(atomic.Int32)
	token := func() string { return fmt.Sprint("token-", generation.Load()) }
	asksToken := func(x *faultreg.Exchange) bool { return x.Path == "/token" }
	srv.On(faultreg.Match{Where: asksToken}, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		fmt.Fprintf(w, `{"token":%q,"expires_in":3600}`, token())
	})
	refused := func(x *faultreg.Exchange) bool {
		return strings.HasPrefix(x.Path, "/v2/") && x.Header.Get("Authorization") != "Bearer "+token()
	}
	challenge := fmt.Sprintf(`Bearer realm="%s/token",service="registry",scope="repository:team/app:pull"`, srv.URL())
	srv.On(faultreg.Match{Where: refused}, faultreg.Answer(401,
		`{"errors":[{"code":"UNAUTHORIZED"}]}`, "WWW-Authenticate", challenge))
	return generation, func() int { return srv.Count(faultreg.Match{Where: asksToken}) }
}

// answered counts the GETs of blobs that a registry answered with a status.
func answered(srv *faultreg.Server, status int) int {
	return srv.Count(faultreg.Match{Kind: faultreg.Blob,
		Where: func(x *faultreg.Exchange) bool { return x.Status == status }})
}

// TestOneToken: after the token has expired, 32 readers of one cold file cause one download and ask
// for one token, and 64 that read 100 files ask for one or two.
func TestOneToken(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		ref := e.Serve(harness.Build(t, imgbuild.Spec{Seq: imgbuild.Folders(1, 100, imgbuild.Numbered(100))}))
		srv := e.Registry()
		generation, tokens := tokened(srv)
		m := e.Mount(ref)
		if n := tokens(); n != 1 {
			t.Errorf("the mount asked for %d tokens", n)
		}
		generation.Add(1)
		srv.Reset()
		r := e.Sh(`for i in {1..32}; do echo "$1"; done | xargs -P 32 -n 1 cat | sort | uniq -c`,
			m.Path("world/fs/d0000/f0007.txt")).Want(t, 0)
		if got := strings.Join(strings.Fields(r.Stdout), " "); got != "32 this is file number 7" {
			t.Errorf("32 readers: %v", r)
		}
		if ok, refused := answered(srv, 200), answered(srv, 401); ok != 1 || refused != 1 || tokens() != 1 {
			t.Errorf("32 readers of one file: %d downloads, %d refused, %d tokens; want one each",
				ok, refused, tokens())
		}
		generation.Add(1)
		srv.Reset()
		r = e.Sh(`find "$1" -type f | xargs -P 64 -n 1 cat | sort -u | wc -l`, m.Path("world/fs")).Want(t, 0)
		if r.Stdout != "100\n" {
			t.Errorf("all files: %v", r)
		}
		// How many requests are on their way before the first new token is known is up to the machine.
		if ok, refused := answered(srv, 200), answered(srv, 401); ok != 99 || refused > 99 || tokens() > 2 {
			t.Errorf("99 blobs: %d downloads, %d refused, %d tokens; want 99, at most 99, at most 2", ok, refused, tokens())
		}
	})
}

// TestRequestsAtOnce: however many files are read at once, no more requests are in flight than
// --max-connections says, and each blob is asked for once, also where many names have one content.
func TestRequestsAtOnce(t *testing.T) {
	t.Parallel()
	for options, most := range map[string]int{"": 32, "--max-connections=3": 3, "--max-connections=1": 1} {
		t.Run(fmt.Sprint("most ", most), func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			const files, distinct = 2000, 500
			ref, srv := e.Serve(harness.Build(t,
				imgbuild.Spec{Seq: imgbuild.Folders(20, 100, lines(distinct, 16))})), e.Registry()
			m := e.Mount(ref, strings.Fields(options)...)
			srv.Reset()
			srv.On(faultreg.Match{Kind: faultreg.Blob}, faultreg.Delay(5*time.Millisecond)) // or one request would be over before the next
			var all []*harness.Process
			for range 2 {
				all = append(all, e.Command("grep", "-rc", "0000499", m.Path("world/fs")))
			}
			all = append(all, e.Command("sh", "-c",
				`find "$1" -type f | shuf --random-source=/bin/sh | xargs -P 64 -n 5 cat | sort | uniq -c | wc -l`, "sh", m.Path("world/fs")))
			for _, p := range all[:2] {
				if r := p.Wait(harness.Limit).Want(t, 0); strings.Count(r.Stdout, ":16\n") != files/distinct {
					t.Errorf("%v", r)
				}
			}
			if r := all[2].Wait(harness.Limit).Want(t, 0); r.Stdout != fmt.Sprintln(distinct) {
				t.Errorf("%v", r)
			}
			peak := srv.Peak()
			t.Logf("at most %d requests at once", peak)
			if peak > most {
				t.Errorf("%d requests at once, want at most %d", peak, most)
			}
			for ref, n := range srv.Gets(faultreg.Blob) {
				if n != 1 {
					t.Errorf("%s was asked for %d times", ref, n)
				}
			}
			if n := srv.Count(faultreg.Match{}); n != distinct {
				t.Errorf("%d requests for %d blobs", n, distinct)
			}
		})
	}
}
