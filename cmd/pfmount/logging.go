package main

import (
	"log/slog"

	"github.com/pfmount/pfmount/cmd/pfmount/console"
)

// consoleLogger is the logger of commands that run and end.
func consoleLogger(verbose bool) *slog.Logger { return console.Logger(verbose) }
