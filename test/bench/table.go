package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// cell names one thing that was measured.
type cell struct{ work, column string }

// results are the times of every cell, in order of the runs.
type results map[cell][]time.Duration

func (r results) add(work, column string, d time.Duration) {
	c := cell{work, column}
	r[c] = append(r[c], d)
}

// forget drops a work's times: they warmed up.
func (r results) forget(work string) {
	for c := range r {
		if c.work == work {
			delete(r, c)
		}
	}
}

// print writes a row a work and, for each column, the times and how they compare with the first column.
func (r results) print(out io.Writer, title string, columns []column, works []string) {
	head := []string{""}
	for i, c := range columns {
		head = append(head, c.name)
		if i > 0 {
			head = append(head, "ratio")
		}
	}
	lines := []string{strings.Join(head, "\t")}
	for _, w := range works {
		line := []string{w}
		for i, c := range columns {
			times := r[cell{w, c.name}]
			line = append(line, spread(times))
			if i > 0 {
				line = append(line, ratio(times, r[cell{w, columns[0].name}]))
			}
		}
		lines = append(lines, strings.Join(line, "\t"))
	}
	fmt.Fprintf(out, "\n%s\n", title)
	table(out, lines)
}

// table writes lines of cells that are separated by tabs.
func table(out io.Writer, lines []string) {
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	for _, line := range lines {
		fmt.Fprintln(w, line)
	}
	w.Flush() // the next print meets the same error
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// spread is "median (min..max)"; "-" when nothing was measured.
func spread(times []time.Duration) string {
	switch len(times) {
	case 0:
		return "-"
	case 1:
		return span(times[0])
	}
	return fmt.Sprintf("%s (%s..%s)", span(median(times)), span(slices.Min(times)), span(slices.Max(times)))
}

func ratio(times, base []time.Duration) string {
	if len(times) == 0 || len(base) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fx", float64(median(times))/float64(median(base)))
}

// span is a time with three digits.
func span(d time.Duration) string {
	switch {
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// size is a number of bytes in decimal units.
func size(n int64) string {
	switch {
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 100e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.0f MB", float64(n)/1e6)
}
