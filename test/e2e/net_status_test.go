package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// TestStatusRows: which answers are worth another try, how many are made, and what is said in the
// end. Each row is played to the manifest at mount time and to a file's blob in a mount, which
// reads once the registry is well.
func TestStatusRows(t *testing.T) {
	t.Parallel()
	const words = `{"errors":[{"code":"TOOMANYREQUESTS","message":"you have reached your pull rate limit"}]}`
	answer := func(status int, header ...string) faultreg.Fault {
		return faultreg.Answer(status, words, append(header, "Content-Type", "application/json")...)
	}
	tests := []struct {
		name     string
		fault    faultreg.Fault
		requests int
		says     []string
	}{
		{"408", answer(408), 5, []string{"408", "after 5 tries"}},
		{"429", answer(429), 5, []string{"429", "after 5 tries"}},
		{"500", answer(500), 5, []string{"500"}},
		{"502", answer(502), 5, []string{"502"}},
		{"503", answer(503), 5, []string{"503"}},
		{"504", answer(504), 5, []string{"504"}},
		{"429 for a day", answer(429, "Retry-After", "86400"), 1, []string{"24h0m0s", "limit is 30s"}},
		{"503 for a day", answer(503, "Retry-After", "86400"), 1, []string{"24h0m0s", "limit is 30s"}},
		{"429 until tomorrow", answer(429, "Retry-After",
			time.Now().Add(24*time.Hour).UTC().Format(http.TimeFormat)), 1, []string{"limit is 30s"}},
		{"502 with a Retry-After of no meaning", answer(502, "Retry-After", "86400"), 5, []string{"502"}},
		{"400", answer(400), 1, []string{"400"}},
		{"401", answer(401, "WWW-Authenticate", `Basic realm="x"`), 1, []string{"401", "no credentials"}},
		{"403", answer(403), 1, []string{"403", "no credentials"}},
		{"404", answer(404), 1, []string{"404"}},
		{"405", answer(405), 1, []string{"405"}},
		{"501", answer(501), 1, []string{"501"}},
		{"dropped connections", faultreg.Drop(), 5, []string{"closed early", "after 5 tries"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, img := harness.New(t, ""), failingImage(t)
			ref, srv := e.Push(img), e.Registry()
			rule := srv.On(faultreg.Match{Kind: faultreg.Manifest}, tt.fault)
			said := e.Run("cat", ref, "world/fs/f").Want(t, 5, tt.says...).Stderr
			if rule.Hits() != tt.requests && tt.name != "400" { // a 400 over HTTP on loopback may be a server with TLS
				t.Errorf("%d requests for the manifest, want %d", rule.Hits(), tt.requests)
			}
			if !strings.Contains(said, ref) ||
				tt.name != "dropped connections" && tt.name != "401" &&
					!strings.Contains(said, "your pull rate limit") {
				t.Errorf("neither reference nor the registry's words: %s", said)
			}
			rule.Off()
			m := e.Mount(ref)
			rule = srv.On(faultreg.Match{Ref: img.WireOf("world/fs/f")}, tt.fault)
			e.Command("cat", m.Path("world/fs/f")).Wait(harness.Limit).Want(t, 1, "input/output error")
			if n := rule.Hits(); n != tt.requests && (tt.name != "dropped connections" || n > tt.requests+2) {
				t.Errorf("%d requests for the blob, want %d", n, tt.requests)
			}
			rule.Off()
			harness.Eventually(t, time.Minute, "a read that works", func() bool {
				data, err := m.ReadErr("world/fs/f")
				return err == nil && harness.SHA256(data) == img.Digest("world/fs/f")[7:]
			})
		})
	}
}

// TestRetryAfterRows: a wait that the registry asks for is kept, in both forms, and tries without
// one come further and further apart.
func TestRetryAfterRows(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		status int
		after  func() string
		least  time.Duration
	}{
		{"429 seconds", 429, func() string { return "2" }, 2 * time.Second},
		{"503 seconds", 503, func() string { return "2" }, 2 * time.Second},
		{"408 seconds", 408, func() string { return "2" }, 2 * time.Second},
		// A date has whole seconds, so that "in 3 s" may be 2 s off.
		{"429 date", 429, func() string { return time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat) }, 2 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, img := harness.New(t, ""), failingImage(t)
			ref, srv := e.Push(img), e.Registry()
			wire := img.WireOf("world/fs/f")
			srv.On(faultreg.Match{Ref: wire, Count: 2},
				func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					faultreg.Answer(tt.status, "", "Retry-After", tt.after())(w, r, next)
				})
			e.Sh(`"$1" cat "$2" world/fs/f | sha256sum | grep -q "^$3"`, e.Bin, ref,
				img.Digest("world/fs/f")[7:]).Want(t, 0)
			var last time.Time
			n := 0
			for _, x := range srv.Log() {
				if x.Ref != wire {
					continue
				}
				if n++; n > 1 && x.Start.Sub(last) < tt.least-50*time.Millisecond {
					t.Errorf("request %d came %s after the one before", n, x.Start.Sub(last))
				}
				last = x.End
			}
			if n != 3 {
				t.Errorf("%d requests, want 3", n)
			}
		})
	}
}
