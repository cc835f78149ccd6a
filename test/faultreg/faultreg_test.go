package faultreg

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/imgbuild"
)

const fixtures = "../testdata/fixtures/layout"

// start gives a server with a repo "r" whose blob of 100,000 bytes has the digest returned.
func start(t *testing.T) (srv *Server, digest string, data []byte) {
	t.Helper()
	srv, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	data = make([]byte, 100000)
	imgbuild.Pattern{Seed: 7, Len: int64(len(data))}.ReadAt(data, 0)
	b := imgbuild.NewBlob(data)
	srv.PutBlob("r", b.Digest, b)
	return srv, b.Digest, data
}

// get asks for a blob of "r", from an offset on when it is above 0.
func get(t *testing.T, srv *Server, ref string, from string) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequest("GET", srv.URL()+"/v2/r/blobs/"+ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	if from != "" {
		req.Header.Set("Range", "bytes="+from+"-")
	}
	resp, err := (&http.Client{Transport: &http.Transport{}}).Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// TestFaults holds what each fault does to a GET of the blob, and to a GET of its second half.
func TestFaults(t *testing.T) {
	flipped := func(d []byte) []byte { d = bytes.Clone(d); d[60000] ^= 0xff; return d }
	same := func(d []byte) []byte { return d }
	tests := []struct {
		name   string
		fault  Fault
		status int
		body   func(data []byte) []byte // what a GET gets
		half   func(data []byte) []byte // what a GET from 50000 on gets
		cut    bool                     // the body ends in an error
	}{
		{"none", Chain(Delay(time.Millisecond)), 200, same,
			func(d []byte) []byte { return d[50000:] }, false},
		{"answer", Answer(429, "slow down", "Retry-After", "2"), 429,
			func([]byte) []byte { return []byte("slow down") }, nil, false},
		{"flip", Flip(60000), 200, flipped, func(d []byte) []byte { return flipped(d)[50000:] }, false},
		{"ignore range", IgnoreRange(), 200, same, same, false},
		{"trickle", Trickle(40000, time.Millisecond), 200, same,
			func(d []byte) []byte { return d[50000:] }, false},
		{"append", Append([]byte("more"), false), 200,
			func(d []byte) []byte { return append(bytes.Clone(d), "more"...) }, nil, false},
		{"append chunked", Append([]byte("more"), true), 200,
			func(d []byte) []byte { return append(bytes.Clone(d), "more"...) }, nil, false},
		{"too long", Length(1 << 40), 200, same, nil, true},
		{"cut at 60 %", Cut{Percent: 60}.Fault(), 200, func(d []byte) []byte { return d[:60000] },
			func(d []byte) []byte { return d[50000:60000] }, true},
		{"cut chunked", Cut{Percent: 60, Framing: Chunked}.Fault(), 200,
			func(d []byte) []byte { return d[:60000] }, nil, true},
		{"cut until close", Cut{Percent: 60, Framing: UntilClose}.Fault(), 200,
			func(d []byte) []byte { return d[:60000] }, nil, false},
		{"cut after", Cut{After: 10}.Fault(), 200, func(d []byte) []byte { return d[:10] },
			func(d []byte) []byte { return d[50000:50010] }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv, digest, data := start(t)
			srv.On(Match{Ref: digest}, tt.fault)
			resp, body, err := get(t, srv, digest, "")
			if resp == nil || resp.StatusCode != tt.status || (err != nil) != tt.cut ||
				!bytes.Equal(body, tt.body(data)) {
				t.Errorf("GET: %v, %d bytes, error %v; want status %d, %d bytes, cut %v",
					resp, len(body), err, tt.status, len(tt.body(data)), tt.cut)
			}
			if tt.half == nil {
				return
			}
			_, body, err = get(t, srv, digest, "50000")
			if (err != nil) != tt.cut || !bytes.Equal(body, tt.half(data)) {
				t.Errorf("GET from 50000: %d bytes, error %v; want %d bytes", len(body), err,
					len(tt.half(data)))
			}
		})
	}
}

// TestReset: a cut by RST is an error of the connection, not an early end.
func TestReset(t *testing.T) {
	srv, digest, _ := start(t)
	srv.On(Match{Ref: digest}, Cut{Percent: 30, RST: true}.Fault())
	_, body, err := get(t, srv, digest, "")
	if err == nil || errors.Is(err, io.ErrUnexpectedEOF) || len(body) > 30000 {
		t.Errorf("got %d bytes and %v, want a reset within 30000 bytes", len(body), err)
	}
}

// TestRules: rules are spent in order, From skips, Off removes, Hits counts.
func TestRules(t *testing.T) {
	srv, digest, _ := start(t)
	once := srv.On(Match{Ref: digest, Count: 1}, Answer(500, ""))
	srv.On(Match{Kind: Blob, From: 2, Count: 1}, Answer(503, ""))
	last := srv.On(Match{Kind: Blob,
		Where: func(x *Exchange) bool { return x.Header.Get("Range") != "" }}, Answer(416, ""))
	var got []int
	for _, from := range []string{"", "", "", "", "5"} {
		resp, _, err := get(t, srv, digest, from)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, resp.StatusCode)
	}
	// The second rule sees the second request first, so the third is its second.
	for i, want := range []int{500, 200, 503, 200, 416} {
		if got[i] != want {
			t.Errorf("request %d: status %d, want %d (all: %v)", i, got[i], want, got)
		}
	}
	last.Off()
	if resp, _, err := get(t, srv, digest, "5"); err != nil || resp.StatusCode != 206 {
		t.Errorf("after Off: %v, %v", resp, err)
	}
	if once.Hits() != 1 || last.Hits() != 1 {
		t.Errorf("hits %d and %d, want 1 and 1", once.Hits(), last.Hits())
	}
	if n := srv.Gets(Blob)[digest]; n != 6 {
		t.Errorf("log has %d GETs, want 6", n)
	}
}

// TestHold: held requests wait, others pass, release lets all go; the log counts them in flight.
func TestHold(t *testing.T) {
	srv, digest, data := start(t)
	hold := NewHold()
	srv.On(Match{Ref: digest, Count: 2}, hold.After(500))
	done := make(chan int, 2)
	for range 2 {
		go func() {
			_, body, _ := get(t, srv, digest, "")
			done <- len(body)
		}()
	}
	deadline := time.Now().Add(30 * time.Second)
	for hold.Waiting() != 2 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if _, body, err := get(t, srv, digest, ""); err != nil || len(body) != len(data) {
		t.Errorf("a third request got %d bytes, %v", len(body), err)
	}
	if srv.InFlight() < 2 || srv.Peak() < 3 {
		t.Errorf("in flight %d, peak %d, want 2 and 3", srv.InFlight(), srv.Peak())
	}
	hold.Release()
	for range 2 {
		if n := <-done; n != len(data) {
			t.Errorf("a released request got %d bytes, want %d", n, len(data))
		}
	}
}

// TestRedirect: the other server gets the request, with what headers the client chose to send.
func TestRedirect(t *testing.T) {
	srv, digest, data := start(t)
	other, err := New(Options{Addr: "127.0.0.2:0", Backend: srv.Backend()})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	srv.On(Match{Kind: Blob}, Redirect(other.URL(), "X-Signature=secret"))
	if _, body, err := get(t, srv, digest, ""); err != nil || !bytes.Equal(body, data) {
		t.Errorf("got %d bytes, %v", len(body), err)
	}
	log := other.Log()
	if len(log) != 1 || log[0].Query != "X-Signature=secret" || log[0].Bytes != int64(len(data)) {
		t.Errorf("the other server's log: %+v", log)
	}
}

// TestGoneAndBack: a stopped server refuses, a started one serves on the same port.
func TestGoneAndBack(t *testing.T) {
	srv, digest, _ := start(t)
	host := srv.Host()
	srv.Stop()
	if _, _, err := get(t, srv, digest, ""); err == nil {
		t.Error("a stopped server answered")
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := get(t, srv, digest, ""); err != nil || srv.Host() != host {
		t.Errorf("started again at %s (was %s): %v", srv.Host(), host, err)
	}
}

// TestPush: a fixture goes through distribution's own checks and comes out with equal bytes.
func TestPush(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		srv, err := New(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		img, err := imgbuild.FromLayout(fixtures, "pages")
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.Push(context.Background(), img, "r", "v1"); err != nil {
			t.Fatal(err)
		}
		if n := len(srv.Log()); n != 0 {
			t.Errorf("pushing left %d lines in the log", n)
		}
		req, err := http.NewRequest("GET", srv.URL()+"/v2/r/manifests/v1", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", imgbuild.ManifestType) // without it distribution answers 404
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(raw, img.OCIManifest()) ||
			resp.Header.Get("Content-Type") != imgbuild.ManifestType {
			t.Errorf("manifest: %d bytes, %v, %v", len(raw), resp.Header, err)
		}
		for _, l := range img.Layers {
			_, body, err := get(t, srv, l.Digest, "")
			sum := sha256.Sum256(body)
			if err != nil || "sha256:"+hex.EncodeToString(sum[:]) != l.Digest {
				t.Errorf("%s: %d bytes, %v", l.Digest, len(body), err)
			}
		}
		bad := *img
		bad.Layers = append([]imgbuild.Layer{}, img.Layers...)
		bad.Layers[3].Digest = "sha256:" + strings.Repeat("0", 64)
		if err := srv.Push(context.Background(), &bad, "r", "bad"); err == nil {
			t.Error("distribution took a manifest with a blob it does not have: this is no real registry")
		}
	}
}
