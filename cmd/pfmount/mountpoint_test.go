package main

import (
	"errors"
	"testing"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
)

func TestParsePercent(t *testing.T) {
	for in, want := range map[string]float64{"5%": 0.05, "12.5": 0.125, "0": -1, "0%": -1} {
		if got, err := parsePercent(in); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "-1", "100", "x", "NaN"} {
		if got, err := parsePercent(in); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%q: got %v, %v, want a usage error", in, got, err)
		}
	}
}
