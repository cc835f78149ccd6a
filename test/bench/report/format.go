package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Format writes a number of a unit with about three digits.
func Format(v float64, u Unit) string {
	switch u {
	case Seconds:
		return span(v)
	case Bytes:
		return size(v)
	case Times:
		return fmt.Sprintf("%s×", digits(v))
	}
	return fmt.Sprintf("%.0f", v)
}

func span(s float64) string {
	switch {
	case s < 1e-3:
		return digits(s*1e6) + " µs"
	case s < 1:
		return digits(s*1e3) + " ms"
	}
	return digits(s) + " s"
}

// size is in decimal units.
func size(n float64) string {
	switch {
	case n < 1e6:
		return digits(n/1e3) + " kB"
	case n < 1e9:
		return digits(n/1e6) + " MB"
	}
	return digits(n/1e9) + " GB"
}

// digits is a number with three of them.
func digits(v float64) string {
	switch {
	case v < 0.1:
		return fmt.Sprintf("%.2g", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// text is "median (least–most)", or why there is none.
func (c Cell) text() string {
	why := ""
	if c.Why != "" {
		why = "*" + c.Why + "*"
	}
	if len(c.Values) == 0 {
		if why == "" {
			return "–"
		}
		return why
	}
	out := Format(c.Median(), c.Unit)
	least, most := slices.Min(c.Values), slices.Max(c.Values)
	if a, b := Format(least, c.Unit), Format(most, c.Unit); a != b {
		if number, unit, ok := strings.Cut(a, " "); ok && strings.HasSuffix(b, " "+unit) {
			a = number
		}
		out += fmt.Sprintf(" (%s–%s)", a, b)
	}
	if why != "" {
		out += " " + why
	}
	return out
}

// ratio is the cell's median over another's, as text; "" where that says nothing.
func (c Cell) ratio(to Cell) string {
	q := c.Median() / to.Median()
	if c.Unit != to.Unit || math.IsNaN(q) || math.IsInf(q, 0) {
		return ""
	}
	return Format(q, Times)
}
