// Package report keeps what the bench measured, in a file of JSON, and draws tables and pictures
// from it. It promises that the same file gives the same tables and pictures, and that what failed
// is shown as a failure; it knows nothing of how anything is measured.
package report

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Schema is the version of the results' form.
const Schema = 1

// Report is all that was measured on one machine.
type Report struct {
	Schema  int       `json:"schema"`
	Date    time.Time `json:"date"` // of the last section
	Machine Machine   `json:"machine"`
	Tools   []Tool    `json:"tools"`
	Tables  []Table   `json:"tables"`
}

// Machine is what the numbers depend on.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory"` // bytes
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Disk   string `json:"disk"`
}

// Tool is a program that was measured, or was to be.
type Tool struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Missing string `json:"missing,omitempty"` // how to install it
}

// Table is what one section measured as one user.
type Table struct {
	Section string    `json:"section"`
	Order   int       `json:"order"` // of the section
	User    string    `json:"user"`
	Title   string    `json:"title"`
	Notes   []string  `json:"notes,omitempty"`
	Date    time.Time `json:"date"`
	Product string    `json:"product"` // pfmount's version
	Quick   bool      `json:"quick,omitempty"`
	Load    [2]string `json:"load"` // average of a minute, before and after
	Took    float64   `json:"took"` // seconds
	Base    Base      `json:"base,omitempty"`
	Columns []string  `json:"columns"`
	Rows    []Row     `json:"rows"`
	Targets []Target  `json:"targets,omitempty"`
}

// Base says what ratios compare with.
type Base string

// The first cell of the row, or of the column.
const (
	NoBase      Base = ""
	FirstColumn Base = "column"
	FirstRow    Base = "row"
)

// Row is a line of a table.
type Row struct {
	Name  string `json:"name"`
	Cells []Cell `json:"cells"`
}

// Unit is what a number counts.
type Unit string

// The units of cells and targets.
const (
	Seconds Unit = "s"
	Bytes   Unit = "B"
	Count   Unit = ""
	Times   Unit = "x"
)

// Cell is one thing measured, once or more.
type Cell struct {
	Unit   Unit      `json:"unit"`
	Values []float64 `json:"values,omitempty"`
	Why    string    `json:"why,omitempty"` // there is nothing, or too little
}

// Median is NaN without values.
func (c Cell) Median() float64 {
	n := len(c.Values)
	if n == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(c.Values))
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Target is an aim and what became of it; without Got it was not measured.
type Target struct {
	Text    string   `json:"text"`
	Got     *float64 `json:"got"`
	Limit   float64  `json:"limit"`
	Unit    Unit     `json:"unit"`
	AtLeast bool     `json:"at_least,omitempty"` // else at most
}

// Met tells whether the target was reached.
func (t Target) Met() bool {
	if t.Got == nil {
		return false
	}
	if t.AtLeast {
		return *t.Got >= t.Limit
	}
	return *t.Got <= t.Limit
}

// Names of the files in the folder of results.
const (
	dataFile = "results.json"
	textFile = "RESULTS.md"
	plotDir  = "plots"
)

// Load reads the results of a folder; there may be none yet.
func Load(dir string) (*Report, error) {
	data, err := os.ReadFile(filepath.Join(dir, dataFile))
	if errors.Is(err, fs.ErrNotExist) {
		return &Report{Schema: Schema}, nil
	}
	if err != nil {
		return nil, err
	}
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	if r.Schema != Schema {
		return &Report{Schema: Schema}, nil
	}
	return &r, nil
}

// On makes the report one of a machine and its tools: tables of another machine are dropped.
func (r *Report) On(m Machine, tools []Tool) {
	if r.Machine != m {
		r.Tables = nil
	}
	r.Machine, r.Tools = m, tools
}

// Replace puts a section's tables in the place of its earlier ones.
func (r *Report) Replace(section string, tables []Table) {
	r.Tables = slices.DeleteFunc(r.Tables, func(t Table) bool { return t.Section == section })
	r.Tables = append(r.Tables, tables...)
	slices.SortStableFunc(r.Tables, func(a, b Table) int { return cmp.Compare(a.Order, b.Order) })
}

// Save writes the results, their tables and pictures into a folder.
func (r *Report) Save(dir string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, plotDir), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, dataFile), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return r.Render(dir)
}

// Render draws the tables and pictures of a folder of results.
func (r *Report) Render(dir string) error {
	drawn, err := r.draw(filepath.Join(dir, plotDir))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, textFile), r.markdown(drawn), 0o644)
}
