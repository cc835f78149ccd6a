package fetch

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestReaderPassesReadahead: with one connection, whose answer is held back, a reader's request and one that was raised
// are sent before those of the readahead and the background that were there first.
func TestReaderPassesReadahead(t *testing.T) {
	names := []string{"held", "background", "ahead", "raised", "reader"}
	var parts []part
	for _, n := range names {
		parts = append(parts, part{content: []byte(n)})
	}
	f := newFake(t)
	f.serve(t, parts...)
	o := testOptions()
	o.MaxConns, o.StallTimeout = 1, time.Minute
	im := mustOpen(t, f.ref(t), o)
	l := im.src.(*registry).limiter
	hold, begun := make(chan struct{}), make(chan struct{})
	f.do(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == parts[0].blobPath() {
			close(begun)
			<-hold
		}
		return false
	})
	raised := NewUrgency(Background)
	var readers sync.WaitGroup
	for i, u := range []*Urgency{new(Urgency), NewUrgency(Background), NewUrgency(Ahead), raised, nil} {
		ctx := context.Background()
		if u != nil {
			ctx = WithUrgency(ctx, u)
		}
		readers.Go(func() {
			if err := im.Blob(ctx, parts[i].logical(), int64(len(names[i])), new(buffer)); err != nil {
				t.Errorf("%s: %v", names[i], err)
			}
		})
		if i == 0 {
			<-begun
		}
		for l.waiting() < i {
			time.Sleep(time.Millisecond)
		}
	}
	raised.Raise(Reader)
	f.forget()
	close(hold)
	readers.Wait()
	var got []string
	for _, r := range f.asked() {
		for i, p := range parts {
			if r.URL.Path == p.blobPath() {
				got = append(got, names[i])
			}
		}
	}
	if want := []string{"raised", "reader", "ahead", "background"}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

// TestUrgency: it only rises.
func TestUrgency(t *testing.T) {
	for _, tt := range []struct{ from, to, want Class }{
		{Background, Ahead, Ahead}, {Ahead, Reader, Reader}, {Reader, Background, Reader}, {Ahead, Background, Ahead},
	} {
		u := NewUrgency(tt.from)
		u.Raise(tt.to)
		if got := u.Class(); got != tt.want {
			t.Errorf("%d raised to %d is %d, want %d", tt.from, tt.to, got, tt.want)
		}
	}
	if urgencyOf(context.Background()).Class() != Reader {
		t.Error("a fetch without urgency is not a reader's")
	}
}
