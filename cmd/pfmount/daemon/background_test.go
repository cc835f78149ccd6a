package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
)

// roles are what this binary does as another process.
var roles = map[string]func() int{
	"ready":   func() int { return reportAs(0, nil) },
	"failed":  func() int { return reportAs(5, errors.New("no such image")) },
	"dies":    func() int { return 3 },
	"waits":   waitSignal,
	"deaf":    func() int { signal.Ignore(syscall.SIGTERM); select {} },
	"guarded": guarded,
}

// reportAs reports to the parent, and fails unless that told the mount point.
func reportAs(code int, err error) int {
	parent, perr := TakeParent()
	if perr != nil || parent == nil || parent.Mountpoint != "/mnt/a b" {
		fmt.Fprintln(os.Stderr, parent, perr)
		return 4
	}
	if os.Getenv(readyVar)+os.Getenv(mountpointVar) != "" {
		return 4
	}
	if err := errors.Join(parent.report(code, err), parent.report(9, nil)); err != nil {
		return 4
	}
	return 0
}

// markVar names a file that waitSignal makes when it is ready, and another, with ".ended", when it
// ends in order.
const markVar = "PFMOUNT_TEST_MARK"

func waitSignal() int {
	mark, signals := os.Getenv(markVar), make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return 2
	}
	<-signals
	_ = os.WriteFile(mark+".ended", nil, 0o600)
	return 0
}

// startAs starts this binary in a role. gone waits for its end, until which it has stdin open.
func startAs(
	t *testing.T, ctx context.Context, role string, in *Interrupts,
) (gone func(), err error) {
	t.Helper()
	t.Setenv(roleVar, role)
	r, w, perr := os.Pipe()
	if perr != nil {
		t.Fatal(perr)
	}
	t.Cleanup(func() { w.Close() })
	err = Start(ctx, "/mnt/a b", r, in)
	r.Close()
	return func() {
		t.Helper()
		eventually(t, "the end of the background process", func() bool {
			_, err := w.Write([]byte("x"))
			return errors.Is(err, syscall.EPIPE)
		})
	}, err
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// TestStart: what the background process reports, or that it died, is what Start returns.
func TestStart(t *testing.T) {
	gone, err := startAs(t, t.Context(), "ready", nil)
	if err != nil {
		t.Errorf("ready: %v", err)
	}
	gone()
	gone, err = startAs(t, t.Context(), "failed", nil)
	var remote RemoteError
	if !errors.As(err, &remote) || remote != (RemoteError{5, "no such image"}) {
		t.Errorf("failed: %#v", err)
	}
	gone()
	gone, err = startAs(t, t.Context(), "dies", nil)
	if !errors.Is(err, fault.ErrMount) || !strings.Contains(err.Error(), "ended before the mount") {
		t.Errorf("dies: %v", err)
	}
	gone()
}

// TestStartInterrupted: the first signal ends the background process in order, a second one by force.
func TestStartInterrupted(t *testing.T) {
	mark := t.TempDir() + "/mark"
	t.Setenv(markVar, mark)
	exists := func(name string) bool {
		_, err := os.Stat(name)
		return err == nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for !exists(mark) && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	gone, err := startAs(t, ctx, "waits", nil)
	if !errors.Is(err, context.Canceled) || !exists(mark+".ended") {
		t.Errorf("interrupted: %v, ended in order: %v", err, exists(mark+".ended"))
	}
	gone()
	in := new(Interrupts)
	go func() {
		for {
			in.mu.Lock()
			last := in.last
			in.mu.Unlock()
			if last != nil {
				last()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	gone, err = startAs(t, t.Context(), "deaf", in)
	if !errors.Is(err, fault.ErrMount) {
		t.Errorf("a second signal: %v", err)
	}
	gone()
}

// TestTakeParent: no process is the parent where none says so, and what is no descriptor is refused.
func TestTakeParent(t *testing.T) {
	if p, err := TakeParent(); p != nil || err != nil {
		t.Errorf("without a parent: %v, %v", p, err)
	}
	for _, value := range []string{"x", "-1", "2"} {
		t.Setenv(readyVar, value)
		if p, err := TakeParent(); p != nil || err == nil {
			t.Errorf("%q: %v, %v", value, p, err)
		}
	}
}
