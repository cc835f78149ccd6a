package artifact

import (
	"errors"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// What is wrong with an artifact or its place, beside pfimg.ErrIntegrity and pfimg.ErrUnsupported.
var (
	// ErrNotFound says that the image is not there: 404, or no such folder, tag or id.
	ErrNotFound = errors.New("image not found")
	// ErrMissing says that the image names a blob that is not there. It is also pfimg.ErrIntegrity.
	ErrMissing error = missing{}
	// ErrClosed says that the image was closed.
	ErrClosed = errors.New("image is closed")
)

type missing struct{}

func (missing) Error() string        { return "missing from the image" }
func (missing) Is(target error) bool { return target == pfimg.ErrIntegrity }
