package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/fetch"
)

// A mount tells its state through a Unix socket: HTTP over it, /status as
// JSON, /metrics as Prometheus text, /log with the last lines, /tag. The socket's
// name follows from the mount point, its folder from the user.

// mountState is one mount in the JSON of `pfmount status`.
type mountState struct {
	Mountpoint     string    `json:"mountpoint"`
	Image          string    `json:"image"`
	ManifestDigest string    `json:"manifest_digest"`
	PID            int       `json:"pid"`
	Stale          bool      `json:"stale"`
	Offline        bool      `json:"offline"`
	Started        time.Time `json:"started,omitzero"`
	FetchedBytes   int64     `json:"fetched_bytes"`
	TotalBytes     int64     `json:"total_bytes"`
	Requests       int64     `json:"requests"`
	CacheHits      int64     `json:"cache_hits"`
	CacheMisses    int64     `json:"cache_misses"`
	WaitedReads    int64     `json:"waited_reads"`
	AheadHits      int64     `json:"ahead_hits"`
	AheadWasted    int64     `json:"ahead_wasted"`
	Shown          int64     `json:"shown"`
	Goroutines     int       `json:"goroutines"`
	LastErrors     []string  `json:"last_errors"`

	*tagState // only when asked for
}

// stateDir is where a user's sockets are, by what this process can know: $XDG_RUNTIME_DIR, else the usual place.
func stateDir(uid int) string {
	if uid == os.Geteuid() {
		return stateDirBy(uid, os.Getenv)
	}
	return stateDirBy(uid, func(string) string { return "" })
}

// stateDirBy is where the sockets of a user's process are, by its environment.
func stateDirBy(uid int, getenv func(string) string) string {
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && (uid != 0 || isRootsFolder(dir)) {
		return filepath.Join(dir, "pfmount")
	}
	if uid == 0 {
		return "/run/pfmount"
	}
	if dir := fmt.Sprintf("/run/user/%d", uid); isOwnDir(dir, uid) {
		return filepath.Join(dir, "pfmount")
	}
	tmp := getenv("TMPDIR")
	if !filepath.IsAbs(tmp) {
		tmp = "/tmp"
	}
	return filepath.Join(tmp, "pfmount-"+strconv.Itoa(uid))
}

// isOwnDir reports whether dir is a folder, not a link, of that user.
func isOwnDir(dir string, uid int) bool {
	fi, err := os.Lstat(dir)
	if err != nil || !fi.IsDir() {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == uid
}

func socketName(mountpoint string) string { return shortHash(mountpoint) + ".sock" }

func (d *daemon) serveState() (*stateServer, error) {
	s, l, err := listenState(stateDir(os.Geteuid()), socketName(d.cfg.mountpoint))
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(d.state())
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) { d.writeMetrics(w) })
	mux.HandleFunc("GET /log", func(w http.ResponseWriter, _ *http.Request) {
		all, _ := d.lines.snapshot()
		for _, line := range all {
			fmt.Fprintln(w, line)
		}
	})
	mux.HandleFunc("GET /tag", d.serveTag)
	s.http = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: tagLimit + 5*time.Second, MaxHeaderBytes: 16 << 10,
	}
	go func() {
		defer close(s.over)
		_ = s.http.Serve(l) // ends in Close
	}()
	return s, nil
}

func (d *daemon) state() mountState {
	_, errs := d.lines.snapshot()
	image, stats := d.session.image, d.session.store.Stats()
	traffic := image.Fetched()
	ahead, shown := d.session.prefetch.stats()
	return mountState{
		Mountpoint: d.cfg.mountpoint, Image: d.cfg.image, ManifestDigest: image.Digest(), PID: os.Getpid(),
		Offline: image.Stale(), Started: d.started.UTC(), FetchedBytes: traffic.Bytes, TotalBytes: wholeSize(image),
		Requests: traffic.Requests, CacheHits: int64(stats.Hits), CacheMisses: int64(stats.Misses),
		WaitedReads: d.session.early.waits.Load(), AheadHits: ahead.Hits, AheadWasted: ahead.Wasted, Shown: shown,
		Goroutines: runtime.NumGoroutine(), LastErrors: errs,
	}
}

// wholeSize is what fetching all of an image brings, its OCI manifest included: what was fetched is compared with it. 0 for
// folders and stores, where nothing tells it.
func wholeSize(image *fetch.Image) int64 { return image.Facts().ManifestSize + image.Facts().WireBytes }

// writeMetrics answers in the Prometheus text format, version 0.0.4.
func (d *daemon) writeMetrics(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	s, traffic := d.session.store.Stats(), d.session.image.Fetched()
	ahead, shown := d.session.prefetch.stats()
	for _, m := range []struct {
		name, kind, help string
		value            int64
	}{
		{"fetched_bytes_total", "counter", "Bytes read from the image's source.", traffic.Bytes},
		{"requests_total", "counter", "Requests sent to the image's source.", traffic.Requests},
		{"image_bytes", "gauge", "Size of the image, its manifest included.", wholeSize(d.session.image)},
		{"cache_hits_total", "counter", "Blob opens answered by the cache.", int64(s.Hits)},
		{"cache_misses_total", "counter", "Blob opens that had to wait for a fill.", int64(s.Misses)},
		{"reads_waited_total", "counter", "Reads that waited for a blob.", d.session.early.waits.Load()},
		{"ahead_hits_total", "counter", "Blobs fetched ahead, then read.", ahead.Hits},
		{"ahead_wasted_total", "counter", "Blobs fetched ahead and passed over.", ahead.Wasted},
		{"shown_total", "counter", "Files given to the kernel before they were read.", shown},
		{"cache_fills_failed_total", "counter", "Fills that failed.", int64(s.Failed)},
		{"cache_damaged_total", "counter", "Cached blobs found damaged and dropped.", int64(s.Damaged)},
		{"cache_evicted_total", "counter", "Blobs evicted by this process.", int64(s.Evicted)},
		{"goroutines", "gauge", "Goroutines of the process.", int64(runtime.NumGoroutine())},
	} {
		fmt.Fprintf(w, "# HELP pfmount_%s %s\n# TYPE pfmount_%s %s\npfmount_%s %d\n", m.name, m.help, m.name, m.kind, m.name, m.value)
	}
}
