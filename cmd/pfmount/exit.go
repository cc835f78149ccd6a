package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/cmd/pfmount/daemon"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/safedir"
	"github.com/pfmount/pfmount/fusefs"
	"github.com/pfmount/pfmount/fusefs/mounts"
	"github.com/pfmount/pfmount/sign"
)

// The exit codes, part of the command's contract (docs/operating.md, Exit codes).
const (
	exitOK          = 0
	exitUsage       = 1
	exitUnsupported = 2
	exitAbsent      = 3
	exitIntegrity   = 4
	exitRegistry    = 5
	exitMount       = 6
	exitDisk        = 7
	exitInterrupted = 130
)

// exitMeaning is an exit code as help and manual page explain it.
type exitMeaning struct {
	Code  int
	Means string
}

var exitMeanings = []exitMeaning{
	{exitOK, "done"},
	{exitUsage, "usage or bad input"},
	{exitUnsupported, "not supported (schema, algorithm, not a ProcessFork image)"},
	{exitAbsent, "absent (exists only)"},
	{exitIntegrity, "integrity or signature"},
	{exitRegistry, "registry, network, credentials, not found"},
	{exitMount, "the mount itself"},
	{exitDisk, "local disk"},
	{exitInterrupted, "Ctrl-C"},
}

// exitHelper is what mount(8) expects of a helper whose mount failed.
const exitHelper = 32

// A shownError was already printed and only carries the exit code.
type shownError struct{ error }

func (e shownError) Unwrap() error { return e.error }

// codes is the only table from errors to exit codes; the first match counts.
// Order: what the user can mend first, then what must not be overlooked.
var codes = []struct {
	is   error
	code int
}{
	{fault.ErrUsage, exitUsage},
	{errAbsent, exitAbsent},
	{reader.ErrOpenFiles, exitUsage},
	{safedir.ErrUnsafe, exitUsage},
	{local.ErrTaken, exitUsage},
	{registry.ErrTooLarge, exitUsage},
	{ref.ErrInvalid, exitUsage},
	{registry.ErrConfig, exitUsage},
	{sign.ErrKey, exitUsage},
	{sign.ErrAlgorithm, exitUnsupported},
	{pfimg.ErrUnsupported, exitUnsupported},
	{sign.ErrSignature, exitIntegrity},
	{pfimg.ErrIntegrity, exitIntegrity},
	{cache.ErrSize, exitIntegrity},
	{cache.ErrDamaged, exitDisk},
	{fault.ErrMount, exitMount},
	{fusefs.ErrMount, exitMount},
	{mounts.ErrDevice, exitMount},
	{mounts.ErrHelper, exitMount},
	{artifact.ErrNotFound, exitRegistry},
	{registry.ErrDenied, exitRegistry},
	{registry.ErrOffline, exitRegistry},
	{registry.ErrRegistry, exitRegistry},
	{cache.ErrElsewhere, exitRegistry},
	{context.Canceled, exitInterrupted},
}

// exitCode maps an error to the command's exit code; unknown means 1.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	for _, c := range codes {
		if errors.Is(err, c.is) {
			return c.code
		}
	}
	var remote daemon.RemoteError
	if errors.As(err, &remote) {
		return remote.Code
	}
	var path *fs.PathError
	var link *os.LinkError
	var sys *os.SyscallError
	var errno syscall.Errno
	if errors.As(err, &path) || errors.As(err, &link) || errors.As(err, &sys) ||
		errors.As(err, &errno) {
		return exitDisk
	}
	return exitUsage
}

// helperCode maps an exit code to those that mount(8) documents.
func helperCode(code int) int {
	if code == exitOK || code == exitUsage {
		return code
	}
	return exitHelper
}
