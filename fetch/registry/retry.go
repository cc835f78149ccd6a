package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/sched"
)

// RetryPolicy holds the numbers of trying again.
type RetryPolicy struct {
	Tries     int           // without progress
	Base      time.Duration // of the first wait; it doubles
	Ceiling   time.Duration // of one wait
	MaxAfter  time.Duration // the longest Retry-After that is obeyed
	Progress  int64         // bytes that make the count start again
	DownAfter int           // failures in a row after which a host counts as down
	Probe     time.Duration // between two requests to a host that is down
	Spare     time.Duration // the same where another host can be asked
}

// DefaultRetry returns the numbers that suit most registries.
func DefaultRetry() RetryPolicy {
	return RetryPolicy{
		Tries: 5, Base: 250 * time.Millisecond, Ceiling: 4 * time.Second,
		MaxAfter: 30 * time.Second,
		Progress: 16 << 20, DownAfter: 3, Probe: time.Second, Spare: 10 * time.Second,
	}
}

// breaker makes the circuit breaker of a host.
func (p RetryPolicy) breaker(a asked) *breaker {
	g := &breaker{downAfter: p.DownAfter, interval: p.Probe, spare: p.Spare}
	if a.of.mirror() {
		g.downAfter = 1 // another host is asked at once, so that nothing is lost by it
	}
	return g
}

// retrier counts the tries of one download.
type retrier struct {
	policy RetryPolicy
	failed int   // tries since the last progress
	moved  int64 // bytes since then
}

// progressed notes n bytes that arrived.
func (r *retrier) progressed(n int) {
	if r.failed == 0 {
		return
	}
	if r.moved += int64(n); r.moved >= r.policy.Progress {
		r.failed, r.moved = 0, 0
	}
}

// do runs try until it succeeds or again says that it is over.
func (r *retrier) do(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		if err = r.again(ctx, err); err != nil {
			return err
		}
	}
}

// again waits before the next try. It returns the final error when there is none.
func (r *retrier) again(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !retriable(err) || sched.PriorityOf(ctx).Class() != sched.Reader {
		// What no reader waits for is tried once: the next try would hold up readers elsewhere.
		return err
	}
	r.failed++
	if r.failed >= r.policy.Tries {
		return fmt.Errorf("after %d tries: %w", r.failed, err)
	}
	wait := rand.N(r.window())
	var status *statusError
	if errors.As(err, &status) && status.wait > 0 {
		if status.wait > r.policy.MaxAfter {
			return fmt.Errorf("the server asks to wait %s, the limit is %s: %w",
				status.wait.Round(time.Second), r.policy.MaxAfter, err)
		}
		wait = max(wait, status.wait)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// window is the longest wait before the next try; the real one is anything up to it, so that many
// readers that failed together do not come back together.
func (r *retrier) window() time.Duration {
	return max(1, min(r.policy.Base<<min(r.failed-1, 16), r.policy.Ceiling))
}

// retriable says whether the same request may fare better soon. A stall may not: it has used up the
// time that a download without progress has.
func retriable(err error) bool {
	var done final
	if errors.As(err, &done) {
		return false
	}
	var status *statusError
	if errors.As(err, &status) {
		return passing(status.code)
	}
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.Is(err, errRule), errors.Is(err, errStalled), errors.Is(err, sched.ErrGaveWay),
		errors.Is(err, ErrDenied), errors.Is(err, ErrOffline),
		errors.Is(err, http.ErrSchemeMismatch), errors.Is(err, pfimg.ErrIntegrity),
		isTLS(err), errors.As(err, &record), errors.As(err, &alert):
		return false
	}
	return true
}

// passing says that a status may be another one soon.
func passing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// Unanswered says that a registry did not answer, as against answering no: then an image may be
// opened from a cache.
func Unanswered(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.code >= 500 && status.code != http.StatusNotImplemented
	}
	var failed *requestError
	if !errors.As(err, &failed) || failed.kind != ErrRegistry {
		return false
	}
	return retriable(err) || errors.Is(err, errStalled)
}

// retryAfter reads the header in both its forms; 0: absent or senseless.
// https://www.rfc-editor.org/rfc/rfc9110.html#section-10.2.3
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if secs, err := strconv.ParseUint(v, 10, 32); err == nil {
		return time.Duration(secs) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}
