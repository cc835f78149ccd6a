package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/dustin/go-humanize"
)

// A mount tells its state through a Unix socket: HTTP over it, /status as JSON, /metrics as
// Prometheus text, /log with the last lines, /tag. The socket's name follows from the mount point,
// its directory from the user.

// State is one mount in the JSON of `pfmount status`.
type State struct {
	Mountpoint     string    `json:"mountpoint"`
	Image          string    `json:"image"`
	ManifestDigest string    `json:"manifest_digest"`
	PID            int       `json:"pid"`
	Stale          bool      `json:"stale"`
	Offline        bool      `json:"offline"`
	Started        time.Time `json:"started,omitzero"`
	Numbers
	LastErrors []string `json:"last_errors"`

	*TagState // only when asked for
}

// Numbers are what a State counts.
type Numbers struct {
	FetchedBytes int64 `json:"fetched_bytes"`
	TotalBytes   int64 `json:"total_bytes"`
	Requests     int64 `json:"requests"`
	CacheHits    int64 `json:"cache_hits"`
	CacheMisses  int64 `json:"cache_misses"`
	WaitedReads  int64 `json:"waited_reads"`
	AheadHits    int64 `json:"ahead_hits"`
	AheadWasted  int64 `json:"ahead_wasted"`
	Shown        int64 `json:"shown"`
	Goroutines   int   `json:"goroutines"`
}

// Fetched says how much of the image was fetched, for people.
func (n Numbers) Fetched() string {
	text := humanize.IBytes(uint64(n.FetchedBytes))
	if n.TotalBytes > 0 {
		text += " of " + humanize.IBytes(uint64(n.TotalBytes))
	}
	return text
}

// serveState makes the mount's socket and begins to answer there.
func (d *daemon) serveState() (*stateServer, error) {
	return newStateServer(stateDir(os.Geteuid()), socketName(d.cfg.Mountpoint), d.handler())
}

// handler answers questions about the mount.
func (d *daemon) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(d.state())
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		writeMetrics(w, d.image.Stats())
	})
	mux.HandleFunc("GET /log", func(w http.ResponseWriter, _ *http.Request) {
		all, _ := d.lines.snapshot()
		for _, line := range all {
			fmt.Fprintln(w, line)
		}
	})
	mux.HandleFunc("GET /tag", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(tagOf(r.Context(), d.image))
	})
	return mux
}

func (d *daemon) state() State {
	_, errs := d.lines.snapshot()
	s := d.image.Stats()
	return State{
		Mountpoint: d.cfg.Mountpoint, Image: d.cfg.Image, ManifestDigest: d.image.Digest,
		PID: os.Getpid(), Offline: s.Offline, Started: d.started.UTC(), LastErrors: errs,
		Numbers: Numbers{
			FetchedBytes: s.Source.Bytes, TotalBytes: s.Source.Whole, Requests: s.Source.Requests,
			CacheHits: s.Cache.Hits, CacheMisses: s.Cache.Misses, WaitedReads: s.Waited,
			AheadHits: s.Ahead.Hits, AheadWasted: s.Ahead.Wasted, Shown: s.Ahead.Shown,
			Goroutines: runtime.NumGoroutine(),
		},
	}
}

// writeMetrics writes in the Prometheus text format, version 0.0.4.
func writeMetrics(w io.Writer, s Stats) {
	source, cache, ahead := s.Source, s.Cache, s.Ahead
	for _, m := range []struct {
		name, kind, help string
		value            int64
	}{
		{"fetched_bytes_total", "counter", "Bytes read from the image's source.", source.Bytes},
		{"requests_total", "counter", "Requests sent to the image's source.", source.Requests},
		{"image_bytes", "gauge", "Size of the image, its manifest included.", source.Whole},
		{"cache_hits_total", "counter", "Blob opens answered by the cache.", cache.Hits},
		{"cache_misses_total", "counter", "Blob opens that had to wait for a fill.", cache.Misses},
		{"reads_waited_total", "counter", "Reads that waited for a blob.", s.Waited},
		{"ahead_hits_total", "counter", "Blobs fetched ahead, then read.", ahead.Hits},
		{"ahead_wasted_total", "counter", "Blobs fetched ahead and passed over.", ahead.Wasted},
		{"shown_total", "counter", "Files given to the kernel before they were read.", ahead.Shown},
		{"cache_fills_failed_total", "counter", "Fills that failed.", cache.Failed},
		{"cache_damaged_total", "counter", "Cached blobs found damaged, dropped.", cache.Damaged},
		{"cache_evicted_total", "counter", "Blobs evicted by this process.", cache.Evicted},
		{"goroutines", "gauge", "Goroutines of the process.", int64(runtime.NumGoroutine())},
	} {
		fmt.Fprintf(w, "# HELP pfmount_%s %s\n# TYPE pfmount_%s %s\npfmount_%s %d\n",
			m.name, m.help, m.name, m.kind, m.name, m.value)
	}
}
