// Bench measures pfmount beside ext4, squashfuse, restic mount and rclone mount on one tree:
// walking, listing and reading it warm, after a remount and cold; beside oras and the reference
// tool over distance; as images grow; and what forks share. It promises that the columns of a table
// were measured in turns on the same machine, that what cannot be measured is a line that says why,
// and that it leaves nothing behind, also when it is interrupted.
//
//	bench [-quick] [-full] [-only PART,…] [-out DIR] [-runs N] [-big MiB] [-user NAME] [-dir DIR] BINARY
//	bench -render -out DIR
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/test/bench/report"
)

// options say how much is measured.
type options struct {
	binary string // absolute
	dir    string // where the temporary folder is made; "": the system's, on a disk of its own
	out    string // the folder of the results; "": they are only printed
	user   string // some parts are measured again as this user; "": none
	shape  shape
	quick  bool
	render bool
	full   bool     // the reference tool everywhere
	only   []string // the parts to measure; none: all
	runs   int
	time   time.Duration // for the runs of one table
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(2)
	}
	// The registry takes 4 MiB for each blob it serves: at Go's usual pace, most of what is
	// measured would be its collector.
	debug.SetGCPercent(800)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// `bench | head` must not leave mounts, nor a client of the registry that hangs up end the
	// bench: once it is asked for, Go sends SIGPIPE here for any descriptor and kills nothing.
	// Ignored, it would be so in children, too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if err := run(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&o.quick, "quick", false, "a smoke run: small sizes, one run of each")
	f.BoolVar(&o.render, "render", false, "measure nothing: draw tables and pictures from the results again")
	f.BoolVar(&o.full, "full", false, "measure the reference tool at every distance (8 minutes more)")
	only := f.String("only", "", "measure these `PARTS`: "+strings.Join(partNames(), ","))
	f.StringVar(&o.out, "out", "",
		"keep results, tables and pictures in `DIR`, beside those of parts not measured now")
	f.IntVar(&o.runs, "runs", 3, "measure each thing `N` times, as long as -time allows")
	f.DurationVar(&o.time, "time", 2*time.Minute, "begin no further run of a table that has taken `TIME`")
	f.IntVar(&o.shape.folders, "folders", 11, "`N` folders of small files")
	f.IntVar(&o.shape.files, "files", 1000, "`N` files in each folder")
	bigMiB := f.Int64("big", 1024, "size of the large file in `MiB`")
	f.StringVar(&o.user, "user", defaultUser(),
		"measure some parts again as user `NAME` (root only; empty: as nobody)")
	f.StringVar(&o.dir, "dir", "",
		"measure on the disk of `DIR` (default: as root a new ext4 on a loop device)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.quick {
		given := map[string]bool{}
		f.Visit(func(g *flag.Flag) { given[g.Name] = true })
		for name, value := range map[string]string{"runs": "1", "files": "50", "big": "16", "time": "20s"} {
			if given[name] {
				continue
			}
			if err := f.Set(name, value); err != nil {
				return o, err
			}
		}
	}
	o.shape.big = *bigMiB << 20
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	if o.render && o.out != "" && f.NArg() == 0 {
		return o, nil
	}
	unknown := slices.ContainsFunc(o.only,
		func(name string) bool { return !slices.Contains(partNames(), name) })
	if f.NArg() != 1 || o.render || unknown || o.runs < 1 || o.shape.folders < 1 ||
		o.shape.files < 2 || *bigMiB < 1 {
		return o, errors.New("usage: bench [-quick] [-full] [-only PARTS] [-out DIR] [-runs N] [-big MiB] [-user NAME] [-dir DIR] BINARY; bench -render -out DIR; see -help")
	}
	var err error
	o.binary, err = filepath.Abs(f.Arg(0))
	return o, err
}

// defaultUser is the ordinary user that setup.sh makes.
func defaultUser() string {
	const name = "pftest"
	if _, err := user.Lookup(name); err != nil || os.Geteuid() != 0 {
		return ""
	}
	return name
}

func run(ctx context.Context, o options) (err error) {
	kept := &report.Report{Schema: report.Schema}
	if o.out != "" {
		if kept, err = report.Load(o.out); err != nil {
			return err
		}
	}
	if o.render {
		return kept.Render(o.out)
	}
	p, err := newPlace(o.dir, o.binary)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.clean()) }()
	b := &bench{place: p, opts: o, report: kept, started: time.Now()}
	defer func() { err = errors.Join(err, b.closeSession()) }()
	if err := b.describe(ctx); err != nil {
		return err
	}
	for _, part := range parts {
		if len(o.only) > 0 && !slices.Contains(o.only, part.name) {
			continue
		}
		if err := b.measure(ctx, part); err != nil {
			return err
		}
	}
	if o.out == "" {
		os.Stdout.Write(kept.Markdown())
	}
	fmt.Fprintf(os.Stderr, "bench: done after %v\n", time.Since(b.started).Round(time.Second))
	if len(b.failed) > 0 {
		return fmt.Errorf("%d measurements failed, their cells say why; the first: %s",
			len(b.failed), b.failed[0])
	}
	return nil
}
