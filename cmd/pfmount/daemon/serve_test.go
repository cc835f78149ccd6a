package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// testDaemon is a mount with numbers to tell.
func testDaemon(tag func(context.Context) (string, error)) *daemon {
	d := &daemon{
		cfg: &Config{Image: "reg/img:tag", Mountpoint: "/mnt/a"}, lines: new(lines),
		started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		image: &Image{
			Ref: "reg/img:tag", Digest: "sha256:00", Tag: tag,
			Stats: func() Stats {
				return Stats{
					Source: SourceStats{Bytes: 1, Requests: 2, Whole: 3},
					Cache:  CacheStats{Hits: 4, Misses: 5, Failed: 6, Damaged: 7, Evicted: 8},
					Ahead:  AheadStats{Hits: 9, Wasted: 10, Shown: 11}, Waited: 12, Offline: true,
				}
			},
		},
	}
	d.log = slog.New(slog.NewTextHandler(d.lines, nil))
	d.log.Error("a read failed")
	return d
}

const goldenState = `{"mountpoint":"/mnt/a","image":"reg/img:tag","manifest_digest":"sha256:00",` +
	`"pid":N,"stale":false,"offline":true,"started":"2026-01-02T03:04:05Z","fetched_bytes":1,` +
	`"total_bytes":3,"requests":2,"cache_hits":4,"cache_misses":5,"waited_reads":12,` +
	`"ahead_hits":9,"ahead_wasted":10,"shown":11,"goroutines":N,` +
	`"last_errors":["time=T level=ERROR msg=\"a read failed\""]}` + "\n"

// TestStateServer: what the socket answers, byte for byte, and that it is gone with its server.
func TestStateServer(t *testing.T) {
	t.Parallel()
	d := testDaemon(nil)
	path := filepath.Join(t.TempDir(), "run")
	s, err := newStateServer(path, "s", d.handler())
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path+"/s")
		},
	}}
	get := func(path string) string {
		t.Helper()
		resp, err := client.Get("http://pfmount" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, resp.Status, err)
		}
		return string(b)
	}
	got := regexp.MustCompile(`("pid"|"goroutines"):\d+`).ReplaceAllString(get("/status"), "$1:N")
	got = regexp.MustCompile(`time=\S+`).ReplaceAllString(got, "time=T")
	if got != goldenState {
		t.Errorf("got %s\nwant %s", got, goldenState)
	}
	if log := get("/log"); !strings.HasSuffix(log, "level=ERROR msg=\"a read failed\"\n") {
		t.Errorf("log: %q", log)
	}
	metrics := get("/metrics")
	for _, line := range []string{
		"pfmount_fetched_bytes_total 1", "pfmount_requests_total 2", "pfmount_image_bytes 3",
		"pfmount_cache_hits_total 4", "pfmount_cache_misses_total 5", "pfmount_reads_waited_total 12",
		"pfmount_ahead_hits_total 9", "pfmount_ahead_wasted_total 10", "pfmount_shown_total 11",
		"pfmount_cache_fills_failed_total 6", "pfmount_cache_damaged_total 7",
		"pfmount_cache_evicted_total 8", "# TYPE pfmount_goroutines gauge",
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("metrics have no %q:\n%s", line, metrics)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(path); err != nil || len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// TestAsk: the command's side finds the socket of a mount, and of no other.
func TestAsk(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	digest, tagErr := "sha256:00", error(nil)
	d := testDaemon(func(context.Context) (string, error) { return digest, tagErr })
	s, err := d.serveState()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := &mounts.Mount{ID: -1, Point: "/mnt/a", UID: os.Geteuid(), Source: "reg/img:tag"}
	got, err := Ask(t.Context(), m)
	if err != nil || got.PID != os.Getpid() || got.Shown != 11 || got.TagState != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	if fi, err := os.Stat(filepath.Join(stateDir(os.Geteuid()), socketName("/mnt/a"))); err != nil ||
		fi.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", fi, err)
	}
	for _, tt := range []struct {
		digest string
		err    error
		want   string
	}{
		{"sha256:00", nil, `{"tag_moved":false,"tag_digest":"sha256:00"}`},
		{"sha256:01", nil, `{"tag_moved":true,"tag_digest":"sha256:01"}`},
		{"", nil, `{"tag_moved":null,"tag_digest":""}`},
		{"", errors.New("down"), `{"tag_moved":null,"tag_digest":"","tag_error":"down"}`},
		{"", context.DeadlineExceeded,
			`{"tag_moved":null,"tag_digest":"","tag_error":"reg/img:tag: no answer within 10s"}`},
	} {
		digest, tagErr = tt.digest, tt.err
		state := stateOf(t.Context(), m, true)
		if b, err := json.Marshal(state.TagState); err != nil || string(b) != tt.want {
			t.Errorf("tag: %s, %v, want %s", b, err, tt.want)
		}
	}
	if _, err := Ask(t.Context(), &mounts.Mount{Point: "/mnt/b", UID: os.Geteuid()}); err == nil {
		t.Error("another mount point was answered for")
	}
}

// TestAnnounce: the manager is told of the start, the process, a watchdog's answers and the end, and
// gets no answer to the watchdog where the mount gives none.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	for name, point := range map[string]string{"answers": t.TempDir(), "hangs": "/none"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "n"), Net: "unixgram"}
			manager, err := net.ListenUnixgram("unixgram", address)
			if err != nil {
				t.Fatal(err)
			}
			defer manager.Close()
			if err := manager.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			read := func() string {
				t.Helper()
				b := make([]byte, 4096)
				n, err := manager.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				return string(b[:n])
			}
			d := testDaemon(nil)
			d.notify = &notifier{watchdog: 20 * time.Millisecond, moved: true}
			if d.notify.socket, err = net.DialUnix("unixgram", nil, address); err != nil {
				t.Fatal(err)
			}
			stop := d.notify.announce(t.Context(), point, d.log, d.state)
			first := read()
			for _, want := range []string{"READY=1\n", "STATUS=reg/img:tag: fetched 1 B of 3 B", "MAINPID="} {
				if !strings.Contains(first, want) {
					t.Errorf("first said %q, want %q", first, want)
				}
			}
			if name == "answers" {
				for range 3 {
					if got := read(); got != "WATCHDOG=1" {
						t.Errorf("said %q", got)
					}
				}
			} else {
				eventually(t, "a warning", func() bool {
					all, _ := d.lines.snapshot()
					return strings.Contains(strings.Join(all, "\n"), "does not answer the watchdog")
				})
			}
			stop()
			got := read()
			for name == "answers" && got == "WATCHDOG=1" {
				got = read()
			}
			if got != "STOPPING=1" {
				t.Errorf("last said %q", got)
			}
		})
	}
}
