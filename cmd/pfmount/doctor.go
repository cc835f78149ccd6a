package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/safetext"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "check this machine, and the way to an image: for bug reports",
		ArgsUsage: "[IMAGE]",
		Description: `Checks the kernel, FUSE, the helper that mounts for users, the cache, folders,
mounts, environment and proxies. With an image also each step of the way to it:
route, credentials, name, connection, TLS, manifest, signature, blobs, each with
its time, and what to do when it fails. Exits with the code of the first step that
failed; warnings do not count. It changes nothing, fills no cache, and shows of a
secret only that it is set.

Example: pfmount doctor ghcr.io/org/repo:tag

Limitations: of an image it reads the top-level blobs up to 1 MiB, the tree and one
file: pfmount verify reads all. Each step has a minute at most.`,
		Flags:  append([]cli.Flag{jsonFlag(), verboseFlag()}, append(imageFlags(), cacheFlags()...)...),
		Action: doctorAction,
	}
}

func doctorAction(c *cli.Context) error {
	if c.NArg() > 1 {
		return usagef("unexpected argument %q (see pfmount doctor --help)", c.Args().Get(1))
	}
	d := &diagnosis{Schema: 1, Version: version, Time: time.Now().UTC().Truncate(time.Second), Checks: []check{}}
	if !c.Bool("json") {
		d.out = c.App.Writer
		f, ok := d.out.(*os.File)
		d.terminal = ok && term.IsTerminal(int(f.Fd()))
	}
	d.machine(c)
	if c.NArg() == 1 {
		d.image(c, c.Args().First())
	}
	if err := c.Context.Err(); err != nil {
		return err
	}
	if c.Bool("json") {
		if err := printJSON(c.App.Writer, d); err != nil {
			return err
		}
	}
	for _, k := range d.Checks {
		if k.err != nil {
			return shownError{k.err}
		}
	}
	return nil
}

// diagnosis is the JSON of `pfmount doctor`; as text, each check is a line that is written when it is known.
type diagnosis struct {
	Schema  int       `json:"schema"`
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	Checks  []check   `json:"checks"`

	out      io.Writer // nil: JSON is wanted
	terminal bool
}

// The outcomes of a check.
const (
	outcomeOK      = "ok"
	outcomeWarn    = "warn"
	outcomeFail    = "fail"
	outcomeSkipped = "skipped"
)

// check is one thing that was looked at.
type check struct {
	Name    string  `json:"name"`
	Outcome string  `json:"outcome"`
	Text    string  `json:"text"`
	Advice  string  `json:"advice,omitempty"` // what to do about it
	Seconds float64 `json:"seconds"`
	Values  values  `json:"values,omitempty"`

	err error // of a check that failed
}

// values are what a check found, for programs; sizes are in bytes.
type values map[string]any

// finding is what a check has to say when it did not fail.
type finding struct {
	text   string
	warn   string // not empty: a warning, and what to do about it
	values values
}

// machineLimit bounds a look at this machine, which a file system that hangs can hold up.
const machineLimit = 5 * time.Second

// look runs one check of this machine. advice is for when it fails.
func (d *diagnosis) look(ctx context.Context, name, advice string, f func(context.Context) (finding, error)) bool {
	start := time.Now()
	found, err := bounded(ctx, machineLimit, f)
	return d.tell(ctx, check{Name: name, Advice: advice, Seconds: time.Since(start).Seconds(), err: err}, found)
}

// tell adds a check; it says whether the check did not fail.
func (d *diagnosis) tell(ctx context.Context, k check, found finding) bool {
	if ctx.Err() != nil {
		return false // Ctrl-C: what comes now is no finding
	}
	k.Text, k.Values = found.text, found.values
	switch {
	case k.Outcome == outcomeSkipped:
		k.Advice = ""
	case k.err != nil:
		k.Outcome, k.Text = outcomeFail, k.err.Error()
	case found.warn != "":
		k.Outcome, k.Advice = outcomeWarn, found.warn
	default:
		k.Outcome, k.Advice = outcomeOK, ""
	}
	k.Seconds = max(0, float64(int64(k.Seconds*1e6))/1e6)
	d.Checks = append(d.Checks, k)
	if d.out != nil {
		text := k.Text
		if k.Advice != "" {
			text += " -> " + k.Advice
		}
		fmt.Fprintf(d.out, "%-7s  %-11s  %8s  %s\n", k.Outcome, k.Name, shortTime(k.Seconds), d.safe(text))
	}
	return k.err == nil
}

// skip adds checks that could not be made.
func (d *diagnosis) skip(ctx context.Context, why string, names ...string) {
	for _, name := range names {
		d.tell(ctx, check{Name: name, Outcome: outcomeSkipped}, finding{text: why})
	}
}

// safe makes a text one line that neither a terminal nor a mail program trips over.
func (d *diagnosis) safe(s string) string {
	s = strings.ReplaceAll(s, "\n", " ")
	if d.terminal {
		return safetext.Clip(s, maxMessage)
	}
	return safetext.ASCII(s, maxMessage)
}

func shortTime(seconds float64) string {
	if seconds < 0.0005 {
		return ""
	}
	return fmt.Sprintf("%.3f s", seconds)
}

// bounded runs f for at most limit, and is back by then also when f is not: f may wait for a disk or a program that
// hangs, which nothing ends but the end of this process, soon.
func bounded[T any](ctx context.Context, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	late := fmt.Errorf("not done within %v: %w", limit, errLate)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
	}
	select { // what can end, ends now
	case r := <-done:
		return r.v, r.err
	case <-time.After(2 * time.Second):
		var none T
		return none, context.Cause(ctx)
	}
}

// errLate is of a check that took too long, on the network as a rule.
var errLate = fmt.Errorf("too slow: %w", registry.ErrRegistry)
