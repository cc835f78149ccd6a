// Package doctor examines this machine and, step by step, the way to an image: what a bug report
// needs. It promises to change nothing, to fill no cache, to end in time also where a disk or a
// registry hangs, and to tell of a secret only that it is set.
//
// It reads no command line, and does not mount.
package doctor

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pfmount/pfmount/cmd/pfmount/console"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/safetext"
)

// Config says what is examined.
type Config struct {
	Version  string
	Out      io.Writer // each check is a line there once it is known; nil: nothing is written
	Terminal bool      // Out is one
	HostsDir string    // of hosts.toml files

	// Cache returns the directory of the cache and the bytes that it may have.
	Cache func() (dir string, limit int64, err error)
	// Image returns the image's reference and how it is opened; nil: no image is examined.
	Image func() (ref.Ref, fetch.Options, error)
	// Spool reads a decoded blob without the cache.
	Spool func(context.Context, *fetch.Image, pfimg.Digest) (io.ReadCloser, error)
}

// Examine makes all checks.
func Examine(ctx context.Context, cfg Config) *Diagnosis {
	now := time.Now().UTC().Truncate(time.Second)
	d := &Diagnosis{Schema: 1, Version: cfg.Version, Time: now, Checks: []Check{}, cfg: cfg}
	d.machine(ctx)
	if cfg.Image != nil {
		d.image(ctx)
	}
	return d
}

// Diagnosis is the JSON of `pfmount doctor`.
type Diagnosis struct {
	Schema  int       `json:"schema"`
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	Checks  []Check   `json:"checks"`

	cfg Config
}

// Err returns the error of the first check that failed.
func (d *Diagnosis) Err() error {
	for _, k := range d.Checks {
		if k.err != nil {
			return k.err
		}
	}
	return nil
}

// The outcomes of a check.
const (
	outcomeOK      = "ok"
	outcomeWarn    = "warn"
	outcomeFail    = "fail"
	outcomeSkipped = "skipped"
)

// Check is one thing that was looked at.
type Check struct {
	Name    string  `json:"name"`
	Outcome string  `json:"outcome"`
	Text    string  `json:"text"`
	Advice  string  `json:"advice,omitempty"` // what to do about it
	Seconds float64 `json:"seconds"`
	Values  Values  `json:"values,omitempty"`

	err error // of a check that failed
}

// Values are what a check found, for programs; sizes are in bytes.
type Values map[string]any

// finding is what a check has to say when it did not fail.
type finding struct {
	text   string
	warn   string // not empty: a warning, and what to do about it
	values Values
}

// looker is a check.
type looker = func(context.Context) (finding, error)

// machineLimit bounds a look at this machine, which a file system that hangs can hold up.
const machineLimit = 5 * time.Second

// look runs one check of this machine. advice is for when it fails.
func (d *Diagnosis) look(ctx context.Context, name, advice string, f looker) bool {
	start := time.Now()
	found, err := bounded(ctx, machineLimit, f)
	took := time.Since(start).Seconds()
	return d.tell(ctx, Check{Name: name, Advice: advice, Seconds: took, err: err}, found)
}

// tell adds a check; it says whether the check did not fail.
func (d *Diagnosis) tell(ctx context.Context, k Check, found finding) bool {
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
	if d.cfg.Out != nil {
		text := k.Text
		if k.Advice != "" {
			text += " -> " + k.Advice
		}
		fmt.Fprintf(d.cfg.Out, "%-7s  %-11s  %8s  %s\n",
			k.Outcome, k.Name, shortTime(k.Seconds), d.safe(text))
	}
	return k.err == nil
}

// skip adds checks that could not be made.
func (d *Diagnosis) skip(ctx context.Context, why string, names ...string) {
	for _, name := range names {
		d.tell(ctx, Check{Name: name, Outcome: outcomeSkipped}, finding{text: why})
	}
}

// safe makes a text one line that neither a terminal nor a mail program trips over.
func (d *Diagnosis) safe(s string) string {
	s = strings.ReplaceAll(s, "\n", " ")
	if d.cfg.Terminal {
		return safetext.Clip(s, console.MaxMessage)
	}
	return safetext.ASCII(s, console.MaxMessage)
}

func shortTime(seconds float64) string {
	if seconds < 0.0005 {
		return ""
	}
	return fmt.Sprintf("%.3f s", seconds)
}

// bounded runs f for at most limit, and is back by then also when f is not: f may wait for a disk
// or a program that hangs, which nothing ends but the end of this process, soon.
func bounded[T any](
	ctx context.Context, limit time.Duration, f func(context.Context) (T, error),
) (T, error) {
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
