package report

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/pfmount/pfmount/cache/disk"
	"github.com/pfmount/pfmount/fetch/safetext"
)

// cacheState is the JSON of `pfmount cache info`; sizes are in bytes.
type cacheState struct {
	Schema     int       `json:"schema"`
	Dir        string    `json:"dir"`
	FileSystem string    `json:"file_system"`
	Limit      int64     `json:"limit_bytes"`
	Used       int64     `json:"used_bytes"`
	Free       int64     `json:"free_bytes"`
	Blobs      int       `json:"blobs"`
	Partial    int       `json:"partial"`
	Oldest     time.Time `json:"oldest,omitzero"`
	Newest     time.Time `json:"newest,omitzero"`
	Warning    string    `json:"warning,omitempty"`
}

// cacheVerdict is the JSON of `pfmount cache verify`; names holds at most 100.
type cacheVerdict struct {
	Schema  int      `json:"schema"`
	Checked int      `json:"checked"`
	Bytes   int64    `json:"bytes"`
	Damaged int      `json:"damaged"`
	Names   []string `json:"names"`
}

// CacheInfo prints where a cache is and how full.
func CacheInfo(w io.Writer, info disk.Info, asJSON bool) error {
	if asJSON {
		return JSON(w, cacheState{
			1, info.Dir, info.FileSystem, info.Limit, info.Used, info.Free, info.Files,
			info.Partial, info.Oldest.UTC(), info.Newest.UTC(), info.Warning,
		})
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "folder\t%s (%s)\n", safetext.Plain(info.Dir), info.FileSystem)
	fmt.Fprintf(tw, "used\t%s of %s, %d blobs\n", humanize.IBytes(uint64(info.Used)),
		humanize.IBytes(uint64(info.Limit)), info.Files)
	fmt.Fprintf(tw, "free\t%s on the file system\n", humanize.IBytes(uint64(info.Free)))
	if info.Files > 0 {
		fmt.Fprintf(tw, "last use\t%s to %s\n", info.Oldest.Local().Format(time.DateTime),
			info.Newest.Local().Format(time.DateTime))
	}
	if info.Warning != "" {
		fmt.Fprintf(tw, "warning\t%s\n", info.Warning)
	}
	return tw.Flush()
}

// CacheVerify prints what came of hashing a cache.
func CacheVerify(w io.Writer, r disk.Report, asJSON bool) error {
	if asJSON {
		return JSON(w,
			cacheVerdict{1, r.Checked, r.Bytes, r.Damaged, append([]string{}, r.Names...)})
	}
	for _, name := range r.Names {
		fmt.Fprintf(w, "damaged and dropped: %s\n", name)
	}
	_, err := fmt.Fprintf(w, "%d blobs hashed (%s), %d damaged\n", r.Checked,
		humanize.IBytes(uint64(r.Bytes)), r.Damaged)
	return err
}
