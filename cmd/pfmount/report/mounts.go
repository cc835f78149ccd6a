package report

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/pfmount/pfmount/cmd/pfmount/daemon"
	"github.com/pfmount/pfmount/fetch/safetext"
)

// Mounts prints the states of mounts as a table.
func Mounts(w io.Writer, states []daemon.State) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, s := range states {
		fmt.Fprintf(tw, "%s\t%s\n", safetext.Plain(s.Mountpoint), safetext.Plain(s.Image))
		if s.Stale {
			fmt.Fprintf(tw, "  stale\tits process died; pfmount umount %s\n",
				safetext.Shell(s.Mountpoint))
			continue
		}
		if s.ManifestDigest != "" {
			fmt.Fprintf(tw, "  digest\t%s\n", s.ManifestDigest)
		}
		if s.PID != 0 {
			fmt.Fprintf(tw, "  process\t%d, since %s\n", s.PID,
				s.Started.Local().Format("2006-01-02 15:04:05"))
			fmt.Fprintf(tw, "  fetched\t%s in %d requests\n", s.Fetched(), s.Requests)
			fmt.Fprintf(tw, "  cache\t%d hits, %d misses\n", s.CacheHits, s.CacheMisses)
		}
		if s.Offline {
			fmt.Fprintf(tw, "  offline\tmounted from the cache\n")
		}
		if t := s.TagState; t != nil {
			switch {
			case t.TagError != "":
				fmt.Fprintf(tw, "  tag\tnot known: %s\n", safetext.Plain(t.TagError))
			case t.TagMoved != nil && *t.TagMoved:
				fmt.Fprintf(tw, "  tag\tmoved on to %s; remount to see that\n",
					safetext.Plain(t.TagDigest))
			case t.TagMoved != nil:
				fmt.Fprintf(tw, "  tag\tnot moved\n")
			}
		}
		for _, e := range s.LastErrors {
			fmt.Fprintf(tw, "  error\t%s\n", safetext.Plain(e))
		}
	}
	return tw.Flush()
}

// JSON prints one indented JSON object.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
