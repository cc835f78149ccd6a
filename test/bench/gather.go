package main

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/pfmount/pfmount/test/bench/report"
)

// cell names one thing that is measured.
type cell struct{ row, column string }

// gathered are the values of a table while they are measured. Rows and columns come in the order of
// their first values.
type gathered struct {
	title    string
	base     report.Base
	notes    []string
	targets  []report.Target
	failures []string

	rows, columns []string
	cells         map[cell]*report.Cell
}

func gather(title string, base report.Base) *gathered {
	return &gathered{title: title, base: base, cells: map[cell]*report.Cell{}}
}

func (g *gathered) cell(row, column string) *report.Cell {
	if !slices.Contains(g.rows, row) {
		g.rows = append(g.rows, row)
	}
	if !slices.Contains(g.columns, column) {
		g.columns = append(g.columns, column)
	}
	c := g.cells[cell{row, column}]
	if c == nil {
		c = &report.Cell{}
		g.cells[cell{row, column}] = c
	}
	return c
}

// add keeps a value.
func (g *gathered) add(row, column string, u report.Unit, v float64) {
	c := g.cell(row, column)
	c.Unit, c.Values = u, append(c.Values, v)
}

func (g *gathered) took(row, column string, d time.Duration) {
	g.add(row, column, report.Seconds, d.Seconds())
}

// fail keeps why there is no value; a failure is said at once, too.
func (g *gathered) fail(row, column string, err error) {
	c := g.cell(row, column)
	if c.Why != "" {
		return
	}
	c.Why = short(err.Error())
	if !absent(err) {
		g.failures = append(g.failures, fmt.Sprintf("%s, %s: %v", row, column, err))
		fmt.Fprintf(os.Stderr, "bench: FAILED: %s, %s: %v\n", row, column, err)
	}
}

// short is a text that fits a cell.
func short(s string) string {
	if len(s) > 160 {
		return s[:160] + "…"
	}
	return s
}

func (g *gathered) median(row, column string) float64 { return g.cell(row, column).Median() }

// target notes an aim; got is NaN when it was not measured.
func (g *gathered) target(text string, got, limit float64, u report.Unit) {
	t := report.Target{Text: text, Limit: limit, Unit: u}
	if got == got { // no NaN
		t.Got = &got
	}
	g.targets = append(g.targets, t)
}

// targetLeast is target for what should be large.
func (g *gathered) targetLeast(text string, got, limit float64, u report.Unit) {
	g.target(text, got, limit, u)
	g.targets[len(g.targets)-1].AtLeast = true
}

func (g *gathered) note(format string, args ...any) {
	g.notes = append(g.notes, fmt.Sprintf(format, args...))
}

func (g *gathered) table() report.Table {
	t := report.Table{Title: g.title, Base: g.base, Notes: g.notes, Targets: g.targets, Columns: g.columns}
	for _, row := range g.rows {
		r := report.Row{Name: row}
		for _, column := range g.columns {
			c := g.cells[cell{row, column}]
			if c == nil {
				c = &report.Cell{}
			}
			r.Cells = append(r.Cells, *c)
		}
		t.Rows = append(t.Rows, r)
	}
	return t
}
