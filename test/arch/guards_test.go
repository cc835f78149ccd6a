package arch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGuards: each rule of TestShape fails on a package of testdata that breaks it, and on nothing
// else there.
func TestGuards(t *testing.T) {
	for sample, want := range map[string][]violation{
		"methods":  {{"methods.Many", methods}},
		"promoted": {{"promoted.whole", methods}},
		"fuse":     {{"fuse.many", methods}},
		"strewn":   {{"strewn.wide", methodFiles}},
		"fields":   {{"fields.Exported", fields}, {"fields.mountOptions", fields}},
		"small":    {{"small/b.go", methodFile}},
		"wide":     {{"wide", columns}},
	} {
		files, err := filepath.Glob(filepath.Join("testdata", sample, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		got := load(t, sample, files).violations()
		slices.SortFunc(got, func(a, b violation) int {
			return strings.Compare(a.subject, b.subject)
		})
		if !slices.Equal(got, want) {
			t.Errorf("%s: found %q, want %q", sample, got, want)
		}
	}
	long := filepath.Join(t.TempDir(), "a.go")
	text := "package long\n" + strings.Repeat("\n", maxLines("long")-2) + "func f() {}\n"
	for lineCount, want := range [][]violation{nil, {{"long", lines}}} {
		longer := []byte(text + strings.Repeat("\n", lineCount))
		if err := os.WriteFile(long, longer, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := load(t, "long", []string{long}).violations(); !slices.Equal(got, want) {
			t.Errorf("%d lines: found %q, want %q", maxLines("long")+lineCount, got, want)
		}
	}
	found := []violation{{"a", lines}, {"b", lines}}
	excused := []violation{{"b", lines}, {"b", lines}, {"b", columns}, {"c", lines}}
	want := []string{
		"a: too many lines", "b: take out of notYet: too many lines",
		"b: take out of notYet: lines over 100 columns", "c: take out of notYet: too many lines",
	}
	if got := compare(found, excused); !slices.Equal(got, want) {
		t.Errorf("compare says %q, want %q", got, want)
	}
	usual := maxLines("fetch")
	if maxLines("fetch/registry") <= usual || maxLines("cmd/pfmount") <= usual {
		t.Error("the packages that may be longer may not")
	}
}
