package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/cmd/pfmount/daemon"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

func umountCommand() *cli.Command {
	return &cli.Command{
		Name:      "umount",
		Aliases:   []string{"unmount"},
		Usage:     "unmount, also a stale mount whose process died",
		ArgsUsage: "MOUNTPOINT",
		Description: `Unmounts, and waits until the background process is gone. A mount in use is
left alone, and the processes that use it are named. --lazy detaches it all the same;
open files can then be read for a few seconds more.

Example: pfmount umount /mnt/sess

Limitations: only mounts of pfmount that no other mount covers; a mount that
does not answer is not stale and is left alone.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{
				Name: "lazy", Aliases: []string{"l"}, Usage: "detach now, also when it is in use",
			},
		},
		Action: umountAction,
	}
}

// holdersAsked is how long to look for the users of a mount.
const holdersAsked = 5 * time.Second

func umountAction(c *cli.Context) error {
	arg, err := cmdline.OneArg(c, "MOUNTPOINT")
	if err != nil {
		return err
	}
	dir, err := resolveMountpoint(arg)
	if err != nil {
		return err
	}
	top, err := ownMount(dir)
	if err != nil {
		return err
	}
	pid := 0
	if s, err := daemon.Ask(c.Context, top); err == nil {
		pid = s.PID
	}
	state := mounts.Alive
	if pid == 0 {
		state = mounts.Probe(top)
	}
	switch {
	case state == mounts.Hung:
		return fault.Mountf("%s: the mount does not answer but its process lives; "+
			"to detach it: umount -l %s", dir, safetext.Shell(dir))
	case state == mounts.Stale || c.Bool("lazy"):
		if state == mounts.Stale { // its process cannot
			daemon.RemoveSocket(dir, top.UID)
		}
		if err := mounts.Detach(top, true); err != nil {
			return fault.Mountf("%s: %w", dir, err)
		}
		return nil
	}
	if err := mounts.Detach(top, false); err != nil {
		if h := mounts.Holders(dir, holdersAsked); len(h) > 0 {
			return fault.Mountf("%s: in use by %s (pfmount umount --lazy detaches it all the same)",
				dir, strings.Join(h, ", "))
		}
		return fault.Mountf("%s: %w", dir, err)
	}
	if !daemon.AwaitExit(pid, daemon.EndLimit) {
		fmt.Fprintf(os.Stderr,
			"pfmount: warning: unmounted, but process %d still serves it: "+
				"another mount namespace (a container?) holds a copy\n", pid)
	}
	return nil
}

// ownMount returns the mount of pfmount that is seen at dir. What else is there is left alone, and
// named when it covers one.
func ownMount(dir string) (*mounts.Mount, error) {
	table, err := mounts.Read()
	if err != nil {
		return nil, err
	}
	top := table.Top(dir)
	if top != nil && top.Ours() {
		return top, nil
	}
	over := table.Holding(dir)
	for i := range table {
		if m := &table[i]; m.Point == dir && m.Ours() && over != nil {
			return nil, fault.Mountf("%s: the mount is covered by another one, %s (%s) on %s; "+
				"that has to go first: umount %s",
				dir, safetext.Plain(over.Source), over.Type, safetext.Plain(over.Point),
				safetext.Shell(over.Point))
		}
	}
	return nil, fault.Mountf("%s: not a mount of pfmount", dir)
}
