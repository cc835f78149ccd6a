// Package fault marks the errors that a command line causes itself, so that they get an exit code.
package fault

import (
	"errors"
	"fmt"
)

// The marks; errors.Is finds them.
var (
	// ErrUsage marks what was asked for and cannot be.
	ErrUsage = errors.New("usage")
	// ErrMount marks a fault of the mount point, of its namespace, or of the mount itself.
	ErrMount = errors.New("mount")
)

// marked shows the text of the error alone; the mark is for errors.Is.
type marked struct {
	error
	mark error
}

func (e marked) Unwrap() []error { return []error{e.error, e.mark} }

// Mark returns err with a mark, which its text does not show.
func Mark(err, mark error) error { return marked{err, mark} }

// Usagef formats an error as fmt.Errorf does and marks it with ErrUsage.
func Usagef(format string, a ...any) error { return Mark(fmt.Errorf(format, a...), ErrUsage) }

// Mountf formats an error as fmt.Errorf does and marks it with ErrMount.
func Mountf(format string, a ...any) error { return Mark(fmt.Errorf(format, a...), ErrMount) }
