package main

import (
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/cmd/pfmount/report"
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
			{
				Name:  "info",
				Usage: "show where it is, how full, on which file system",
				Description: `Counts what the folder holds, by a scan of it.

Example: pfmount cache info --json | jq .used_bytes

Limitations: the scan is slow when the cache holds very many blobs.`,
				Flags:  append(cacheFlags(), jsonFlag(), verboseFlag()),
				Action: withCache(cacheInfo),
			},
			{
				Name:  "prune",
				Usage: "evict the least recently used blobs",
				Description: `Removes the blobs that were not used for the longest time, until at
most --to is used: without --to, all of them.

Example: pfmount cache prune --to 1GiB

Limitations: the space of a blob that a mount has open is free some seconds later.`,
				Flags: append(cacheFlags(), verboseFlag(), &cli.StringFlag{
					Name: "to", Value: "0", Usage: "until at most `SIZE` is used (0: everything)",
				}),
				Action: withCache(cachePrune),
			},
			{
				Name:  "verify",
				Usage: "hash every cached blob, drop damaged ones (exit 7 when there were any)",
				Description: `Reads and hashes all that the cache holds, and names what it drops.

Example: pfmount cache verify || echo some blobs will be fetched again

Limitations: it reads the whole cache; the names of at most 100 damaged blobs are shown.`,
				Flags:  append(cacheFlags(), jsonFlag(), verboseFlag()),
				Action: withCache(cacheVerify),
			},
			{
				Name:  "clear",
				Usage: "remove everything the cache holds",
				Description: `Removes blobs and what is known of references. Mounts fetch again.

Example: pfmount cache clear

Limitations: --offline finds nothing afterwards.`,
				Flags:  append(cacheFlags(), verboseFlag()),
				Action: withCache(cacheClear),
			},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return fault.Usagef("no command %q: cache knows info, prune, verify, clear",
					c.Args().First())
			}
			return fault.Usagef(
				"cache needs one of info, prune, verify, clear (see pfmount cache --help)")
		},
	}
}

func withCache(action func(*cli.Context, *cache.Store) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.NArg() > 0 {
			return fault.Usagef("unexpected argument %q", c.Args().First())
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
	return report.CacheInfo(c.App.Writer, info, c.Bool("json"))
}

func cachePrune(c *cli.Context, store *cache.Store) error {
	var target uint64
	if to := c.String("to"); to != "0" {
		var err error
		if target, err = humanize.ParseBytes(to); err != nil {
			return fault.Usagef("--to: %q is not a size such as 500MB or 10GiB", to)
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
	err = report.CacheVerify(c.App.Writer, r, c.Bool("json"))
	if err == nil && r.Damaged > 0 {
		return shownError{cache.ErrDamaged}
	}
	return err
}

func cacheClear(c *cli.Context, store *cache.Store) error {
	return store.Clear(c.Context)
}
