// Bench measures pfmount beside the plain file system, and beside squashfuse where that is installed, on
// one tree, in one run: walking, listing and reading it warm, after a remount and cold; what mounting and
// the first file cost in round trips, requests and bytes; and the memory of the process. It promises that
// the columns of a table were measured in turns on the same machine, and that it leaves nothing behind,
// also when it is interrupted.
//
//	bench [-quick] [-runs N] [-folders N] [-files N] [-big MiB] [-delay TIME] [-dir DIR] BINARY
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
	"syscall"
	"time"
)

// options say how much is measured.
type options struct {
	binary string // absolute
	dir    string // where the temporary folder is made; "": the system's
	shape  shape
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
	quick := f.Bool("quick", false, "a smoke run: a tenth of the files, an eighth of the large file, one run")
	f.IntVar(&o.runs, "runs", 3, "measure each thing `N` times")
	f.IntVar(&o.shape.folders, "folders", 11, "`N` folders of small files")
	f.IntVar(&o.shape.files, "files", 1000, "`N` files in each folder")
	bigMiB := f.Int64("big", 256, "size of the large file in `MiB`")
	f.DurationVar(&o.delay, "delay", 20*time.Millisecond, "`TIME` of each request in the distant column")
	f.StringVar(&o.dir, "dir", "", "measure on the disk of `DIR` (default: of the system's temporary folder)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if *quick {
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
	if f.NArg() != 1 || o.runs < 1 || o.shape.folders < 1 || o.shape.files < 2 || *bigMiB < 1 || o.delay <= 0 {
		return o, errors.New("usage: bench [-quick] [-runs N] [-folders N] [-files N] [-big MiB] [-delay TIME] [-dir DIR] BINARY")
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
	s, err := newSession(ctx, p, o)
	if err != nil {
		return fmt.Errorf("session: %w", err)
	}
	defer s.srv.Close()
	s.describe(out)
	for _, part := range []struct {
		name string
		do   func(context.Context, io.Writer) error
	}{
		{"first file", s.firstFile},
		{"cold", s.cold},
		{"remount", s.remount},
		{"warm", s.warm},
		{"memory", s.memory},
	} {
		fmt.Fprintf(os.Stderr, "bench: %s, after %v\n", part.name, time.Since(started).Round(time.Second))
		if err := part.do(ctx, out); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	_, err = fmt.Fprintf(out, "\nAll of it took %v.\n", time.Since(started).Round(time.Second))
	return err
}
