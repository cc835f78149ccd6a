package daemon

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// stuckVar has this binary be a command that is deaf: its value says what it does.
const stuckVar = "PFMOUNT_TEST_STUCK"

// TestSecondSignal: a second signal ends a process that never stops computing, one with last
// words, and one whose last words hang.
func TestSecondSignal(t *testing.T) {
	if how := os.Getenv(stuckVar); how != "" {
		stuck(how)
	}
	for _, tt := range []struct {
		how   string
		lines []string // after "ready"
	}{
		{"spins", []string{"first"}}, {"has last words", []string{"first", "last"}},
		{"has last words that hang", []string{"first"}},
	} {
		t.Run(tt.how, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run", "^TestSecondSignal$")
			cmd.Env = append(os.Environ(), stuckVar+"="+tt.how)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			late := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
			defer late.Stop()
			said := bufio.NewScanner(out)
			for i, want := range append([]string{"ready"}, tt.lines...) {
				if !said.Scan() || said.Text() != want {
					t.Fatalf("got %q, want %q", said.Text(), want)
				}
				if i < 2 {
					_ = cmd.Process.Signal([]os.Signal{syscall.SIGINT, syscall.SIGTERM}[i])
				}
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != interrupted {
				t.Errorf("ended by %v, want %d", cmd.ProcessState, interrupted)
			}
		})
	}
}

// interrupted is the exit code after a second signal.
const interrupted = 130

func stuck(how string) {
	in, ctx, _ := CatchInterrupts(interrupted)
	switch how {
	case "has last words":
		in.AtSecond(func() { fmt.Println("last") })
	case "has last words that hang":
		in.AtSecond(func() { select {} })
	}
	for range 2 * runtime.GOMAXPROCS(0) {
		go func() {
			for n := 0; ; n++ {
			}
		}()
	}
	fmt.Println("ready")
	<-ctx.Done()
	fmt.Println("first")
	for n := 0; ; n++ {
	}
}
