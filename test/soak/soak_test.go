package soak

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
)

var (
	minutes = flag.Float64("minutes", 1, "how long to soak")
	seed    = flag.Uint64("seed", 0, "the plan's seed; 0: one of its own")
	trace   = flag.Bool("trace", false, "print every action")
)

func TestMain(m *testing.M) {
	if os.Getenv(readerVar) != "" {
		serve(os.Stdin, os.Stdout) // ends with its input
		return
	}
	flag.Parse()
	os.Exit(harness.Main(m))
}

// TestSoak is the fault harness; see the package doc. Ctrl-C ends it cleanly.
func TestSoak(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) % 1e9
	}
	j := &journal{start: time.Now()}
	if *trace {
		j.echo = func(line string) { fmt.Println(line) }
	}
	fmt.Printf("soak: seed %d, %v minutes\n", *seed, *minutes)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	soak(ctx, newStage(t, harness.New(t, ""), *seed, j), *seed, time.Duration(*minutes*float64(time.Minute)))
}
