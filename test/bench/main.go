// Bench measures pfmount beside the plain file system, and beside squashfuse where that is installed, on
// one tree, in one run: walking, listing and reading it warm, after a remount and cold; what mounting and
// the first file cost in round trips, requests and bytes; the memory of the process; and push and pull beside
// the reference tool and oras. It promises that the columns of a table were measured in turns on the same
// machine, and that it leaves nothing behind, also when it is interrupted.
//
//	bench [-quick] [-only PART] [-runs N] [-folders N] [-files N] [-big MiB] [-delay TIME] [-dir DIR] BINARY
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options say how much is measured.
type options struct {
	binary string // absolute
	dir    string // where the temporary folder is made; "": the system's
	shape  shape
	quick  bool
	only   string // the one part to measure; "": all
	runs   int
	delay  time.Duration // of each request, in the column that has one
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
	// SIGPIPE too: `bench | head` must not leave mounts.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&o.quick, "quick", false, "a smoke run: a tenth of the files, an eighth of the large file, one run")
	f.StringVar(&o.only, "only", "", "measure one `PART`: "+strings.Join(partNames(), ", "))
	f.IntVar(&o.runs, "runs", 3, "measure each thing `N` times")
	f.IntVar(&o.shape.folders, "folders", 11, "`N` folders of small files")
	f.IntVar(&o.shape.files, "files", 1000, "`N` files in each folder")
	bigMiB := f.Int64("big", 256, "size of the large file in `MiB`")
	f.DurationVar(&o.delay, "delay", 20*time.Millisecond, "`TIME` of each request in the distant column")
	f.StringVar(&o.dir, "dir", "", "measure on the disk of `DIR` (default: of the system's temporary folder)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.quick {
		given := map[string]bool{}
		f.Visit(func(g *flag.Flag) { given[g.Name] = true })
		for name, value := range map[string]string{"runs": "1", "files": "100", "big": "32"} {
			if given[name] {
				continue
			}
			if err := f.Set(name, value); err != nil {
				return o, err
			}
		}
	}
	o.shape.big = *bigMiB << 20
	if f.NArg() != 1 || o.runs < 1 || o.shape.folders < 1 || o.shape.files < 2 || *bigMiB < 1 || o.delay <= 0 ||
		o.only != "" && !slices.Contains(partNames(), o.only) {
		return o, errors.New("usage: bench [-quick] [-only PART] [-runs N] [-folders N] [-files N] [-big MiB] [-delay TIME] [-dir DIR] BINARY")
	}
	var err error
	o.binary, err = filepath.Abs(f.Arg(0))
	return o, err
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	started := time.Now()
	p, err := newPlace(o.dir, o.binary)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.clean()) }()
	if err := p.describe(ctx, out); err != nil {
		return err
	}
	var s *session // made for the first part that needs it
	defer func() {
		if s != nil {
			err = errors.Join(err, s.srv.Close())
		}
	}()
	for _, part := range parts {
		if o.only != "" && part.name != o.only {
			continue
		}
		if s == nil && part.do != nil {
			if s, err = newSession(ctx, p, o); err != nil {
				return fmt.Errorf("session: %w", err)
			}
			s.describe(out)
		}
		fmt.Fprintf(os.Stderr, "bench: %s, after %v\n", part.name, time.Since(started).Round(time.Second))
		if part.do != nil {
			err = part.do(s, ctx, out)
		} else {
			err = p.carry(ctx, o, out)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	_, err = fmt.Fprintf(out, "\nAll of it took %v.\n", time.Since(started).Round(time.Second))
	return err
}

// parts are what can be measured, in order; a part without do needs no session.
var parts = []struct {
	name string
	do   func(*session, context.Context, io.Writer) error
}{
	{"first-file", (*session).firstFile},
	{"cold", (*session).cold},
	{"remount", (*session).remount},
	{"warm", (*session).warm},
	{"memory", (*session).memory},
	{"carry", nil},
}

func partNames() (names []string) {
	for _, part := range parts {
		names = append(names, part.name)
	}
	return names
}
