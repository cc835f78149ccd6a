package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/safedir"
	"github.com/pfmount/pfmount/fetch/safedir/safedirtest"
)

// smallLog opens a log that rotates early.
func smallLog(t *testing.T, path string, limit int64) *rotatingLog {
	t.Helper()
	l, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	l.limit = limit
	t.Cleanup(func() { l.Close() })
	return l
}

func logLines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(string(text)))
}

// TestRotation: two processes that write to one log rotate it once, and no line is lost, doubled or
// broken; after more rotations there are still two files, private and of bounded size.
func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "log")
	const line, limit, most = len("line 0000 of 0\n"), 100, 190
	logs := []*rotatingLog{smallLog(t, path, limit*int64(line)), smallLog(t, path, limit*int64(line))}
	var want []string
	var wg sync.WaitGroup
	for i, l := range logs {
		for n := range most / 2 {
			want = append(want, fmt.Sprintf("line %04d of %d\n", n, i))
		}
		wg.Go(func() {
			for n := range most / 2 {
				if _, err := fmt.Fprintf(l, "line %04d of %d\n", n, i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := append(logLines(t, path+oldLog), logLines(t, path)...)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
	for n := range 10 * limit {
		if _, err := fmt.Fprintf(logs[n%2], "line %04d of 2\n", n); err != nil {
			t.Fatal(err)
		}
	}
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(names) != 2 {
		t.Fatalf("%v, %v", names, err)
	}
	all := append(logLines(t, path+oldLog), logLines(t, path)...)
	for i, l := range all {
		if want := fmt.Sprintf("line %04d of 2\n", 10*limit-len(all)+i); l != want {
			t.Fatalf("line %d: %q, want %q", i, l, want)
		}
	}
	for _, name := range names {
		st, err := name.Info()
		if err != nil || st.Mode() != 0o600 || st.Size() > limit*int64(line) {
			t.Errorf("%s: %v, %v", name.Name(), st, err)
		}
	}
}

// TestLogReplaced: a log that was removed or renamed is begun anew; one that cannot be rotated
// stays bounded.
func TestLogReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := smallLog(t, path, 1000)
	write := func(text string) {
		t.Helper()
		if _, err := l.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("two\n")
	if got := logLines(t, path); !slices.Equal(got, []string{"two\n"}) {
		t.Errorf("after a rename: %q", got)
	}
	if err := errors.Join(os.Remove(path), os.MkdirAll(path+oldLog+"/full", 0o700)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		write(strings.Repeat("x", 99) + "\n")
	}
	if st, err := os.Stat(path); err != nil || st.Size() > 2000 || st.Size() == 0 {
		t.Errorf("a log that cannot be rotated: %v, %v", st, err)
	}
}

// TestLogRace has another user put symlinks to a file of root's in the place of a log that is being
// rotated, in a folder that all may write to as they may to /tmp.
func TestLogRace(t *testing.T) {
	if !safedirtest.CanChown(t) {
		return
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret, shared := filepath.Join(dir, "secret"), filepath.Join(dir, "shared")
	err := errors.Join(os.WriteFile(secret, []byte("secret"), 0o600),
		os.Mkdir(shared, 0o700), os.Chmod(shared, 0o777|os.ModeSticky))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(shared, "log")
	l := smallLog(t, path, 40)
	stop, planted := make(chan struct{}), make(chan int)
	go func() {
		runtime.LockOSThread() // the thread ends with its user
		n := 0
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, safedirtest.Stranger, safedirtest.Stranger, safedirtest.Stranger); e != 0 {
			t.Error(e)
		}
		for {
			select {
			case <-stop:
				planted <- n
				return
			default:
			}
			if os.Symlink(secret, path) == nil {
				n++
				os.Remove(path)
			}
		}
	}()
	for range 20_000 {
		if _, err := l.Write([]byte("a line of twenty byte\n")); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	t.Logf("%d symlinks were in the log's place", <-planted)
	st, err := os.Lstat(secret)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(secret)
	if err != nil || string(text) != "secret" || st.Mode() != 0o600 || !ownedBy(st, 0) {
		t.Errorf("the file of root's: %q, %v, %v", text, st, err)
	}
}

// TestNotALog: what is no regular file is refused at once, with what to do.
func TestNotALog(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, word := range map[string]string{fifo: "FIFO", "/dev/null": "device", dir: "directory"} {
		_, err := openLog(path)
		if !errors.Is(err, safedir.ErrUnsafe) {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if text := err.Error(); !strings.Contains(text, word) || !strings.Contains(text, "--log-file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
