package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/cmd/pfmount/daemon"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fusefs"
	"github.com/pfmount/pfmount/sign"
)

func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{fault.Usagef("x"), 1},
		{ref.ErrInvalid, 1},
		{sign.ErrKey, 1},
		{local.ErrTaken, 1},
		{registry.ErrTooLarge, 1},
		{errAbsent, 3},
		{errors.New("anything"), 1},
		{sign.ErrAlgorithm, 2},
		{pfimg.ErrUnsupported, 2},
		{sign.ErrSignature, 4},
		{pfimg.ErrIntegrity, 4},
		{artifact.ErrMissing, 4},
		{cache.ErrSize, 4},
		{cache.ErrElsewhere, 5},
		{cache.ErrDamaged, 7},
		{artifact.ErrNotFound, 5},
		{registry.ErrDenied, 5},
		{registry.ErrRegistry, 5},
		{registry.ErrOffline, 5},
		{fault.Mountf("x"), 6},
		{fault.Mountf("x: %w", fs.ErrNotExist), 6},
		{fusefs.ErrMount, 6},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, 7},
		{syscall.ENOSPC, 7},
		{context.Canceled, 130},
		{daemon.RemoteError{Code: 5, Message: "the child said so"}, 5},
		{errors.Join(registry.ErrRegistry, pfimg.ErrIntegrity), 4},
		{shownError{pfimg.ErrIntegrity}, 4},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%v: got %d, want %d", tt.err, got, tt.want)
		}
		if tt.err == nil {
			continue
		}
		if got := exitCode(fmt.Errorf("image: blob: %w", tt.err)); got != tt.want {
			t.Errorf("%v, wrapped: got %d, want %d", tt.err, got, tt.want)
		}
	}
}
