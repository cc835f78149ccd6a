package registry

import (
	"errors"
)

// What can go wrong, by what the user can do about it. Errors of pfimg (ErrIntegrity,
// ErrUnsupported), of sign and of the context come through as they are.
var (
	// ErrDenied says that the registry wants other credentials: 401 or 403.
	ErrDenied = errors.New("access denied")
	// ErrRegistry says that a registry, or the way to it, failed otherwise.
	ErrRegistry = errors.New("registry failed")
	// ErrOffline says that something is not cached and the network may not be asked.
	ErrOffline = errors.New("offline, and not in the cache")
	// ErrTooLarge says that an image has more blobs than a registry takes.
	ErrTooLarge = errors.New("too large for a registry")
	// ErrConfig says that a file with certificates or hosts cannot be used.
	ErrConfig = errors.New("bad configuration")
)

// errStalled ends a request that brought nothing for Options.StallTimeout.
var errStalled = errors.New("no byte arrived in time")
