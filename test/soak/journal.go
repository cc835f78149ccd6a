package soak

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// kept is the number of actions that a failure shows.
const kept = 150

// journal remembers the last actions.
type journal struct {
	start time.Time
	echo  func(string) // gets every line, too; may be nil

	mu    sync.Mutex // guards lines
	lines []string
}

func (j *journal) note(format string, a ...any) {
	line := fmt.Sprintf("%9.3f  ", time.Since(j.start).Seconds()) + fmt.Sprintf(format, a...)
	if j.echo != nil {
		j.echo(line)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
	if len(j.lines) > 2*kept {
		j.lines = slices.Clone(j.lines[kept:])
	}
}

func (j *journal) last() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines[max(0, len(j.lines)-kept):], "\n")
}

// Names of counts that are asked for again.
const (
	reads       = "reads"
	bytesRead   = "bytes"
	cleanErrors = "clean errors"
	recoveries  = "recoveries"
	met         = "fault "
)

// counts are the numbers at the end.
type counts struct {
	mu   sync.Mutex // guards what follows
	n    map[string]int64
	most map[string]int64
	slow time.Duration
}

func newCounts() *counts { return &counts{n: map[string]int64{}, most: map[string]int64{}} }

func (c *counts) add(name string, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[name] += n
}

func (c *counts) get(name string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[name]
}

// peak keeps the largest n.
func (c *counts) peak(name string, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most[name] = max(c.most[name], n)
}

func (c *counts) slowest(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slow = max(c.slow, d)
}

// String is a table of everything counted.
func (c *counts) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.n)) {
		fmt.Fprintf(&b, "%12d  %s\n", c.n[name], name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.most)) {
		fmt.Fprintf(&b, "%12d  peak of %s\n", c.most[name], name)
	}
	fmt.Fprintf(&b, "%12v  slowest read or command (bound %v)\n", c.slow.Round(time.Millisecond), bound)
	return b.String()
}
