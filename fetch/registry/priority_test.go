package registry

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/registry/registrytest"
	"github.com/pfmount/pfmount/fetch/sched"
)

// TestReaderPassesReadahead: with one connection, whose answer is held back, a reader's request and
// one that was raised are sent before those of the readahead and the background that were there
// first.
func TestReaderPassesReadahead(t *testing.T) {
	names := []string{"held", "background", "ahead", "raised", "reader"}
	var parts []registrytest.Layer
	for _, n := range names {
		parts = append(parts, registrytest.Layer{Content: []byte(n)})
	}
	f := registrytest.NewServer(t)
	f.Serve(t, parts...)
	o := quickOptions()
	o.MaxConns, o.StallTimeout = 1, time.Minute
	im := mustOpenImage(t, f.Ref(t), o)
	l := im.Limiter()
	hold, begun := make(chan struct{}), make(chan struct{})
	f.Answer(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == parts[0].BlobPath() {
			close(begun)
			<-hold
		}
		return false
	})
	raised := sched.NewPriority(sched.Background)
	var readers sync.WaitGroup
	for i, u := range []*sched.Priority{
		new(sched.Priority), sched.NewPriority(sched.Background), sched.NewPriority(sched.Ahead), raised, nil,
	} {
		ctx := context.Background()
		if u != nil {
			ctx = sched.WithPriority(ctx, u)
		}
		readers.Go(func() {
			if err := im.Blob(ctx, parts[i].Logical(), int64(len(names[i])),
				new(registrytest.Buffer)); err != nil {
				t.Errorf("%s: %v", names[i], err)
			}
		})
		if i == 0 {
			<-begun
		}
		for l.Waiting() < i {
			time.Sleep(time.Millisecond)
		}
	}
	raised.Raise(sched.Reader)
	f.Forget()
	close(hold)
	readers.Wait()
	var got []string
	for _, r := range f.Requests() {
		for i, p := range parts {
			if r.URL.Path == p.BlobPath() {
				got = append(got, names[i])
			}
		}
	}
	if want := []string{"raised", "reader", "ahead", "background"}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

// TestTriedOnce: what no reader waits for is not tried again, unless one has come for it.
func TestTriedOnce(t *testing.T) {
	p := DefaultRetry()
	p.Base, p.Ceiling = time.Millisecond, time.Millisecond
	cut := &requestError{kind: ErrRegistry, text: "cut"}
	u := sched.NewPriority(sched.Ahead)
	ctx := sched.WithPriority(t.Context(), u)
	if err := (&retrier{policy: p}).again(ctx, cut); err != cut {
		t.Errorf("no reader waits: %v, want %v", err, cut)
	}
	u.Raise(sched.Reader)
	if err := (&retrier{policy: p}).again(ctx, cut); err != nil {
		t.Errorf("a reader waits: %v", err)
	}
	if sched.PriorityOf(context.Background()).Class() != sched.Reader {
		t.Error("a fetch without priority is not a reader's")
	}
}
