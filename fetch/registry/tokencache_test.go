package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// tokenServer gives out tokens to a cache, and counts.
type tokenServer struct {
	c      *tokenCache
	clock  atomic.Int64 // seconds
	issued atomic.Int64
	lasts  time.Duration // 0: not said
	err    error
	hold   chan struct{} // nil: answers at once
}

func newTokenServer() *tokenServer {
	s := &tokenServer{c: newTokenCache()}
	s.c.now = func() time.Time { return time.Unix(1e9+s.clock.Load(), 0) }
	return s
}

func (s *tokenServer) fetch(ctx context.Context) (string, error) {
	n := s.issued.Add(1)
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	if s.lasts > 0 {
		tokenNoteOf(ctx).lasts = s.lasts
	}
	return fmt.Sprintf("t%d", n), s.err
}

// request is one request's way through the cache: a token that is there, and if that is refused,
// another one.
func (s *tokenServer) request(ctx context.Context, valid func(string) bool) (string, error) {
	ctx = auth.AppendScopesForHost(withAttempt(ctx), "h", "repository:a:pull")
	var value string
	if scheme, err := s.c.GetScheme(ctx, "h"); err == nil {
		value, _ = s.c.GetToken(ctx, "h", scheme, "whatever auth.Client calls it")
	}
	if value != "" && valid(value) {
		return value, nil
	}
	return s.c.Set(ctx, "h", auth.SchemeBearer, "or calls it now", s.fetch)
}

func always(string) bool { return true }

func TestTokenLife(t *testing.T) {
	steps := []struct {
		at   int64         // seconds
		says time.Duration // of a token issued now
		err  error
		want string
	}{
		{0, 300 * time.Second, nil, "t1"},
		{269, 0, nil, "t1"},
		{270, 300 * time.Second, nil, "t2"}, // 30 s ahead of its end
		{539, 0, nil, "t2"},
		{540, 0, errors.New("down"), "t2"}, // goes on with the old one
		{540, 0, nil, "t2"},                // and does not ask at once again (t3 failed)
		{541, 10 * time.Second, nil, "t4"},
		{548, 0, nil, "t4"},
		{549, 0, nil, "t5"},      // a fifth of its life ahead
		{549 + 47, 0, nil, "t5"}, // one that says nothing holds 60 s
		{549 + 48, 24 * time.Hour, nil, "t6"},
		{549 + 48 + 86400 - 31, 0, nil, "t6"},
		{549 + 48 + 7*86400, 0, nil, "t7"}, // no read for a week
	}
	s := newTokenServer()
	for i, step := range steps {
		s.clock.Store(step.at)
		s.lasts, s.err = step.says, step.err
		got, err := s.request(context.Background(), always)
		if got != step.want || err != nil {
			t.Errorf("step %d, at %d s: got %s, %v, want %s", i, step.at, got, err, step.want)
		}
	}
}

// TestTokenForMany: however many requests wait for a token, one asks for it; a request refused with
// an old token gets the current one.
func TestTokenForMany(t *testing.T) {
	s := newTokenServer()
	valid := func(v string) bool { return v == fmt.Sprintf("t%d", s.issued.Load()) }
	all := func(want string) {
		t.Helper()
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				if got, err := s.request(context.Background(), valid); got != want || err != nil {
					t.Errorf("got %s, %v, want %s", got, err, want)
				}
			})
		}
		wg.Wait()
	}
	all("t1")
	if n := s.issued.Load(); n != 1 {
		t.Fatalf("%d tokens for 32 readers, want 1", n)
	}
	s.lasts = time.Hour
	s.clock.Store(3600)
	all("t2")
	if n := s.issued.Load(); n != 2 {
		t.Fatalf("%d tokens after the first expired, want 2", n)
	}
	// A request that carries t2 is refused after another has got t3.
	late := auth.AppendScopesForHost(withAttempt(context.Background()), "h", "repository:a:pull")
	if got, err := s.c.GetToken(late, "h", auth.SchemeBearer, ""); got != "t2" || err != nil {
		t.Fatalf("got %s, %v, want t2", got, err)
	}
	if got, err := s.request(context.Background(),
		func(v string) bool { return v != "t2" }); got != "t3" || err != nil {
		t.Fatalf("got %s, %v, want t3", got, err)
	}
	if got, err := s.c.Set(late, "h", auth.SchemeBearer, "", s.fetch); got != "t3" || err != nil ||
		s.issued.Load() != 3 {
		t.Errorf("late: got %s, %v after %d tokens, want t3 after 3", got, err, s.issued.Load())
	}
	if _, err := s.c.GetToken(late, "h", auth.SchemeBearer, ""); err == nil {
		t.Error("a token that the request was refused with is given to it again")
	}
}

// TestTokenReaderLeaves: the request that asks for a token is cancelled while others wait, and they
// get a token all the same.
func TestTokenReaderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenServer()
		s.hold = make(chan struct{})
		ctx, cancel := context.WithCancel(context.Background())
		first := make(chan error, 1)
		go func() { _, err := s.request(ctx, always); first <- err }()
		synctest.Wait()
		var wg sync.WaitGroup
		for range 31 {
			wg.Go(func() {
				if got, err := s.request(context.Background(), always); got != "t2" || err != nil {
					t.Errorf("got %s, %v, want t2", got, err)
				}
			})
		}
		synctest.Wait() // all wait for the first one's request
		cancel()
		synctest.Wait()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("the first: got %v, want context.Canceled", err)
		}
		close(s.hold)
		wg.Wait()
		if n := s.issued.Load(); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

// TestTokenDenied: a denial fails all requests of the next second, then it is forgotten; other
// failures are not kept.
func TestTokenDenied(t *testing.T) {
	s := newTokenServer()
	for _, step := range []struct {
		at     int64
		err    error
		issued int64
	}{{0, &loginError{"no"}, 1}, {0, nil, 1}, {1, errors.New("down"), 2}, {1, nil, 3}} {
		s.clock.Store(step.at)
		s.err = step.err
		_, err := s.request(context.Background(), always)
		if wantErr := step.issued != 3; (err != nil) != wantErr || s.issued.Load() != step.issued {
			t.Errorf("at %d s: got %v after %d requests, want %d", step.at, err, s.issued.Load(), step.issued)
		}
	}
}

// TestOneTokenForReaders: 32 readers of an image at once, with a token that expires under them.
func TestOneTokenForReaders(t *testing.T) {
	f := registrytest.NewServer(t)
	parts := manyBlobs(32)
	f.Serve(t, parts...)
	a := withTokens(t, f, "")
	im := mustOpenImage(t, f.Ref(t), quickOptions())
	for round := range int64(3) {
		if failed := readAll(im, parts); len(failed) > 0 {
			t.Error(failed)
		}
		if n := a.issued.Load(); n != round+1 {
			t.Errorf("round %d: %d tokens, want %d", round, n, round+1)
		}
		a.valid.Store(99)
	}
}

// TestChallengeOfOtherScopes: a registry that names more scopes than were asked for costs no
// further requests.
func TestChallengeOfOtherScopes(t *testing.T) {
	p := registrytest.Layer{Content: []byte("content")}
	f := registrytest.NewServer(t)
	f.Serve(t, p)
	a := withTokens(t, f, "")
	a.answer = func(w http.ResponseWriter, r *http.Request) {
		a.valid.Store(a.issued.Add(1))
		fmt.Fprintf(w, `{"access_token":"token-%d","expires_in":300}`, a.issued.Load())
	}
	a.scope = "repository:a:pull repository:prefix/a:pull"
	im := mustOpenImage(t, f.Ref(t), quickOptions())
	before := f.Count("*")
	if err := im.Blob(context.Background(), p.Logical(), 7, &registrytest.Buffer{}); err != nil ||
		f.Count("*") != before+1 || a.issued.Load() != 1 {
		t.Errorf("got %v with %d requests and %d tokens, want 1 and 1", err, f.Count("*")-before,
			a.issued.Load())
	}
}
