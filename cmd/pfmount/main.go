// Pfmount mounts ProcessFork session images from OCI registries, lazily and
// verified, as read-only FUSE file systems.
//
// This package is flags and wiring: one file a command, the one way to open an image from a command
// line (open.go), and the one table from errors to exit codes (exit.go). What can be tested alone
// lives in the packages below it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/cmd/pfmount/daemon"
	"github.com/pfmount/pfmount/cmd/pfmount/environ"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

// version is set by the linker (see Makefile).
var version = "0.1.0-dev"

func main() {
	switch {
	case os.Getenv(daemon.GuardVar) != "":
		os.Exit(daemon.RunGuard())
	case os.Getenv(mounts.ProbeVar) != "":
		os.Exit(mounts.RunProbe())
	}
	environ.DropForeignFolders(os.Stderr)
	environ.SetHome()
	// A closed terminal or pipe must not end a mount: writes to it fail with
	// EPIPE instead, and are dropped.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	interruptedCode := exitInterrupted
	if cmdline.IsMountHelper(os.Args[0]) {
		interruptedCode = helperCode(interruptedCode)
	}
	in, ctx, stop := daemon.CatchInterrupts(interruptedCode)
	err := run(ctx, in, os.Args)
	interrupted := ctx.Err() != nil
	stop()
	code := exitCode(err)
	if interrupted && err != nil {
		code = exitInterrupted
	}
	if cmdline.IsMountHelper(os.Args[0]) {
		code = helperCode(code)
	}
	var shown shownError
	if err != nil && !errors.As(err, &shown) {
		fmt.Fprintf(os.Stderr, "pfmount: %v\n", err)
	}
	os.Exit(code)
}

// run parses args (args[0] is the program) and carries out one command.
func run(ctx context.Context, in *daemon.Interrupts, args []string) error {
	app := newApp()
	app.Metadata = map[string]any{interruptsKey: in}
	if line, ok := cmdline.Complete(app, args, places); ok {
		defer time.AfterFunc(completeLimit, func() { os.Exit(exitOK) }).Stop()
		return app.RunContext(ctx, line)
	}
	order := cmdline.Arrange
	if cmdline.IsMountHelper(args[0]) {
		order = cmdline.ArrangeHelper
	}
	args, err := order(app, args)
	if err != nil {
		return err
	}
	return app.RunContext(ctx, args)
}

// interruptsKey is where the app's metadata have the signals of this process.
const interruptsKey = "interrupts"

// interruptsOf returns the signals that end this command; nil in tests.
func interruptsOf(c *cli.Context) *daemon.Interrupts {
	in, _ := c.App.Metadata[interruptsKey].(*daemon.Interrupts)
	return in
}
