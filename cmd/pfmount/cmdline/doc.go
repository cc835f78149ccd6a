// Package cmdline reads command lines. It turns what a user or mount(8) types into what the cli
// library parses, and completes a word of it.
//
// It knows the shape of a command line: which words are commands, options and their values. It does
// not know what a command does; candidates that depend on the machine come from its caller.
package cmdline

import (
	"errors"
	"fmt"
)

// ErrUsage marks a command line that cannot be read; ErrNamespace marks a mount namespace that
// cannot be entered.
var (
	ErrUsage     = errors.New("usage")
	ErrNamespace = errors.New("mount namespace")
)

// markedError shows the text of the error alone; the mark is for errors.Is.
type markedError struct {
	error
	mark error
}

func (e markedError) Unwrap() []error { return []error{e.error, e.mark} }

func usagef(format string, a ...any) error {
	return markedError{fmt.Errorf(format, a...), ErrUsage}
}

func namespacef(format string, a ...any) error {
	return markedError{fmt.Errorf(format, a...), ErrNamespace}
}
