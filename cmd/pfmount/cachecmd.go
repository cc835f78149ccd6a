package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/fetch/safetext"
)

func cacheCommand() *cli.Command {
	return &cli.Command{
		Name:  "cache",
		Usage: "look at or clean the disk cache",
		Description: `The cache holds verified blobs under their digests and is shared by all mounts
and commands of a user; each command below is safe while mounts use it.

Example: pfmount cache prune --to 1GiB

Limitations: a file system without flock is refused; NFS has no reliable locks,
which cache info says.`,
		Subcommands: []*cli.Command{
			{Name: "info", Usage: "show where it is, how full, on which file system", Description: `Counts what the folder holds, by a scan of it.

Example: pfmount cache info --json | jq .used_bytes

Limitations: the scan is slow when the cache holds very many blobs.`,
				Flags: append(cacheFlags(), jsonFlag(), verboseFlag()), Action: withCache(cacheInfo)},
			{Name: "prune", Usage: "evict the least recently used blobs", Description: `Removes the blobs that were not used for the longest time, until at most --to is
used: without --to, all of them.

Example: pfmount cache prune --to 1GiB

Limitations: the space of a blob that a mount has open is free some seconds later.`,
				Flags: append(cacheFlags(), verboseFlag(),
					&cli.StringFlag{Name: "to", Usage: "until at most `SIZE` is used (0: everything)", Value: "0"}), Action: withCache(cachePrune)},
			{Name: "verify", Usage: "hash every cached blob, drop damaged ones (exit 7 when there were any)", Description: `Reads and hashes everything that the cache holds, and names what it drops.

Example: pfmount cache verify || echo some blobs will be fetched again

Limitations: it reads the whole cache; the names of at most 100 damaged blobs are shown.`,
				Flags: append(cacheFlags(), jsonFlag(), verboseFlag()), Action: withCache(cacheVerify)},
			{Name: "clear", Usage: "remove everything the cache holds", Description: `Removes blobs and what is known of references. Mounts go on and fetch again.

Example: pfmount cache clear

Limitations: --offline finds nothing afterwards.`,
				Flags: append(cacheFlags(), verboseFlag()), Action: withCache(cacheClear)},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("no command %q: cache knows info, prune, verify, clear", c.Args().First())
			}
			return usagef("cache needs one of info, prune, verify, clear (see pfmount cache --help)")
		},
	}
}

func withCache(action func(*cli.Context, *cache.Store) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.NArg() > 0 {
			return usagef("unexpected argument %q", c.Args().First())
		}
		store, err := openCache(c, consoleLogger(c.Bool("verbose")))
		if err != nil {
			return err
		}
		defer store.Close()
		return action(c, store)
	}
}

func cacheInfo(c *cli.Context, store *cache.Store) error {
	info, err := store.Info(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, cacheState{
			1, info.Dir, info.FileSystem, info.Limit, info.Used, info.Free, info.Files, info.Partial, info.Oldest.UTC(), info.Newest.UTC(), info.Warning,
		})
	}
	tw := tabwriter.NewWriter(c.App.Writer, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "folder\t%s (%s)\n", safetext.Plain(info.Dir), info.FileSystem)
	fmt.Fprintf(tw, "used\t%s of %s, %d blobs\n", humanize.IBytes(uint64(info.Used)), humanize.IBytes(uint64(info.Limit)), info.Files)
	fmt.Fprintf(tw, "free\t%s on the file system\n", humanize.IBytes(uint64(info.Free)))
	if info.Files > 0 {
		fmt.Fprintf(tw, "last use\t%s to %s\n", info.Oldest.Local().Format(time.DateTime), info.Newest.Local().Format(time.DateTime))
	}
	if info.Warning != "" {
		fmt.Fprintf(tw, "warning\t%s\n", info.Warning)
	}
	return tw.Flush()
}

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

func cachePrune(c *cli.Context, store *cache.Store) error {
	var target uint64
	if to := c.String("to"); to != "0" {
		var err error
		if target, err = humanize.ParseBytes(to); err != nil {
			return usagef("--to: %q is not a size such as 500MB or 10GiB", to)
		}
	}
	freed, n, err := store.Prune(c.Context, int64(target))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%d blobs evicted, %s freed\n", n, humanize.IBytes(uint64(freed)))
	return nil
}

func cacheVerify(c *cli.Context, store *cache.Store) error {
	r, err := store.Verify(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, cacheVerdict{1, r.Checked, r.Bytes, r.Damaged, append([]string{}, r.Names...)})
	} else {
		for _, name := range r.Names {
			fmt.Fprintf(c.App.Writer, "damaged and dropped: %s\n", name)
		}
		_, err = fmt.Fprintf(c.App.Writer, "%d blobs hashed (%s), %d damaged\n", r.Checked, humanize.IBytes(uint64(r.Bytes)), r.Damaged)
	}
	if err == nil && r.Damaged > 0 {
		return shownError{cache.ErrDamaged}
	}
	return err
}

// cacheVerdict is the JSON of `pfmount cache verify`; names holds at most 100.
type cacheVerdict struct {
	Schema  int      `json:"schema"`
	Checked int      `json:"checked"`
	Bytes   int64    `json:"bytes"`
	Damaged int      `json:"damaged"`
	Names   []string `json:"names"`
}

func cacheClear(c *cli.Context, store *cache.Store) error {
	return store.Clear(c.Context)
}
