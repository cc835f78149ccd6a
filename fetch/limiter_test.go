package fetch

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// line is a queue of named requests before a limiter that notes the order in which they are admitted. Each gives its
// slot back at once.
type line struct {
	t        *testing.T
	l        *limiter
	at       place
	admitted chan string
}

// wait puts a request into the queue and returns when it waits there.
func (q *line) wait(name string, u *Urgency) {
	q.t.Helper()
	q.l.mu.Lock()
	before := len(q.l.queue)
	q.l.mu.Unlock()
	go func() {
		leave, err := q.l.take(context.Background(), &q.at, u)
		if err != nil {
			q.t.Error(err)
			return
		}
		q.admitted <- name
		leave()
	}()
	for until := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		q.l.mu.Lock()
		n := len(q.l.queue)
		q.l.mu.Unlock()
		if n > before {
			return
		}
		if time.Now().After(until) {
			q.t.Fatalf("%s does not wait", name)
		}
	}
}

func (q *line) order(n int) (names []string) {
	q.t.Helper()
	for range n {
		select {
		case name := <-q.admitted:
			names = append(names, name)
		case <-time.After(time.Minute):
			q.t.Fatalf("only %q were admitted", names)
		}
	}
	return names
}

func mustTake(t *testing.T, l *limiter, at *place, c Class) func() {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	leave, err := l.take(ctx, at, NewUrgency(c))
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

// mayGo says that a request would be admitted now.
func mayGo(l *limiter, at *place, c Class) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.may(&seat{at: at, want: NewUrgency(c)}, time.Now())
}

func TestLimiterOrder(t *testing.T) {
	q := &line{t: t, l: &limiter{slots: 1}, admitted: make(chan string, 10)}
	held := mustTake(t, q.l, &q.at, Reader)
	raised := NewUrgency(Background)
	q.wait("background", NewUrgency(Background))
	q.wait("raised", raised)
	q.wait("ahead", NewUrgency(Ahead))
	q.wait("first reader", new(Urgency))
	q.wait("second reader", new(Urgency))
	raised.Raise(Reader)
	raised.Raise(Background) // less urgent it never gets
	held()
	held() // twice is once
	want := []string{"raised", "first reader", "second reader", "ahead", "background"}
	if got := q.order(len(want)); !slices.Equal(got, want) {
		t.Errorf("admitted %q, want %q", got, want)
	}
}

func TestLimiterBounds(t *testing.T) {
	l, one, other := &limiter{slots: 4}, new(place), new(place)
	var leave []func()
	for range 2 {
		leave = append(leave, mustTake(t, l, one, Background))
	}
	if mayGo(l, one, Background) || mayGo(l, other, Background) {
		t.Error("the background takes more than half of the slots")
	}
	for range 2 {
		leave = append(leave, mustTake(t, l, one, Ahead))
	}
	if mayGo(l, one, Reader) {
		t.Error("a host has more requests than slots")
	}
	leave = append(leave, mustTake(t, l, other, Reader))
	for _, f := range leave {
		f()
	}
	if one.used != 0 || other.used != 0 || l.busy != [3]int{} || len(l.queue) != 0 {
		t.Errorf("left behind: %+v %+v %+v", one, other, l)
	}
}

// TestLimiterTrouble: the background pauses at the first failure, the readahead at the second or when the server asks
// for it, readers never; a raised request goes at once.
func TestLimiterTrouble(t *testing.T) {
	tests := []struct {
		name              string
		notes             []time.Duration // failures, each with its Retry-After
		ahead, background bool
	}{
		{"none", nil, true, true},
		{"one", []time.Duration{0}, true, false},
		{"two", []time.Duration{0, 0}, false, false},
		{"limited", []time.Duration{time.Minute}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := &line{t: t, l: &limiter{slots: 4}, admitted: make(chan string, 1)}
			for _, wait := range tt.notes {
				q.l.until[Background] = time.Time{} // the pause before is over
				q.l.note(true, wait)
			}
			if got := [3]bool{mayGo(q.l, &q.at, Reader), mayGo(q.l, &q.at, Ahead), mayGo(q.l, &q.at, Background)}; got != [3]bool{true, tt.ahead, tt.background} {
				t.Errorf("reader, ahead, background may go: %v", got)
			}
			if tt.background {
				return
			}
			if d := time.Until(q.l.until[Background]); d > lastPause {
				t.Errorf("it pauses for %v", d)
			}
			u := NewUrgency(Background)
			q.wait("raised", u)
			u.Raise(Reader)
			q.order(1)
		})
	}
	l := &limiter{slots: 1}
	l.note(true, 0)
	l.until[Background] = time.Now().Add(20 * time.Millisecond)
	time.AfterFunc(20*time.Millisecond, l.look)
	mustTake(t, l, new(place), Background)() // the pause ends by itself
}

// TestFailTogether: what fails together pauses as one failure does, an answer lets the readahead go on, and what the server
// asked for holds whatever comes after it.
func TestFailTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, at := &limiter{slots: 64}, new(place)
		for range 32 {
			l.note(true, 0)
		}
		if !mayGo(l, at, Ahead) || mayGo(l, at, Background) {
			t.Error("32 failures at once are more than one")
		}
		time.Sleep(firstPause)
		l.note(true, 0)
		if mayGo(l, at, Ahead) {
			t.Error("a second failure does not pause the readahead")
		}
		l.note(false, 0)
		if !mayGo(l, at, Ahead) || mayGo(l, at, Background) {
			t.Error("after an answer the readahead goes on, and the background waits for its time")
		}
		for range 16 {
			l.note(true, 20*time.Second)
		}
		l.note(true, 0)
		l.note(true, 2*time.Second)
		l.note(false, 0)
		if time.Sleep(19 * time.Second); mayGo(l, at, Ahead) || mayGo(l, at, Background) {
			t.Error("a Retry-After of 20 s ends before its time")
		}
		if time.Sleep(time.Second); !mayGo(l, at, Ahead) || !mayGo(l, at, Background) {
			t.Error("a Retry-After of 20 s does not end")
		}
		l.note(true, 0)
		if time.Sleep(2 * firstPause); !mayGo(l, at, Background) {
			t.Error("16 answers at once were 16 failures")
		}
	})
}

// TestLull: who waits for a lull waits for readers and readahead, not for the background.
func TestLull(t *testing.T) {
	for _, c := range []Class{Reader, Ahead, Background} {
		l := &limiter{slots: 4}
		leave := mustTake(t, l, new(place), c)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- l.lull(ctx) }()
		if c == Background {
			if err := <-done; err != nil {
				t.Error(err)
			}
			cancel()
			continue
		}
		for l.waiting() == 0 {
			time.Sleep(time.Millisecond)
		}
		leave()
		if err := <-done; err != nil {
			t.Error(err)
		}
		leave = mustTake(t, l, new(place), c)
		go func() { done <- l.lull(ctx) }()
		cancel()
		if err := <-done; err == nil {
			t.Error("a lull while there is none")
		}
		leave()
	}
}

func (l *limiter) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

// TestGivesWay: a request that nobody waits for leaves the queue after a while, since it may keep others from the blob.
// One that somebody waits for stays, also when it was raised meanwhile.
func TestGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, at := &limiter{slots: 1}, new(place)
		held := mustTake(t, l, at, Reader)
		for _, c := range []Class{Ahead, Background} {
			if _, err := l.take(t.Context(), at, NewUrgency(c)); !errors.Is(err, ErrGaveWay) {
				t.Errorf("class %d: %v, want %v", c, err, ErrGaveWay)
			}
		}
		raised, admitted := NewUrgency(Ahead), make(chan error)
		go func() {
			leave, err := l.take(t.Context(), at, raised)
			if err == nil {
				leave()
			}
			admitted <- err
		}()
		time.Sleep(patience / 2)
		raised.Raise(Reader)
		time.Sleep(10 * patience)
		held()
		if err := <-admitted; err != nil {
			t.Errorf("raised: %v", err)
		}
		if at.used != 0 || l.waiting() != 0 {
			t.Errorf("left behind: %d under way, %d in the queue", at.used, l.waiting())
		}
	})
}

// TestTriedOnce: what nobody waits for is not tried again, unless somebody has come for it.
func TestTriedOnce(t *testing.T) {
	p := defaultRetry()
	p.base, p.ceiling = time.Millisecond, time.Millisecond
	cut := &requestError{kind: ErrRegistry, text: "cut"}
	u := NewUrgency(Ahead)
	ctx := WithUrgency(t.Context(), u)
	if err := (&retrier{policy: p}).again(ctx, cut); err != cut {
		t.Errorf("nobody waits: %v, want %v", err, cut)
	}
	u.Raise(Reader)
	if err := (&retrier{policy: p}).again(ctx, cut); err != nil {
		t.Errorf("somebody waits: %v", err)
	}
}
