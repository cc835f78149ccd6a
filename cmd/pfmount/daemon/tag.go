package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// tagLimit bounds how long a daemon asks where its image's tag points.
const tagLimit = 10 * time.Second

// TagState says whether the tag that a mount was made by has moved on. The mount keeps its digest
// all the same. Only the daemon can tell: it has the credentials and options of the mount.
type TagState struct {
	TagMoved  *bool  `json:"tag_moved"`  // nil: mounted by no tag, or it cannot be told
	TagDigest string `json:"tag_digest"` // what it names now
	TagError  string `json:"tag_error,omitempty"`
}

// tagOf asks where the tag of an image points.
func tagOf(ctx context.Context, image *Image) TagState {
	ctx, cancel := context.WithTimeout(ctx, tagLimit)
	defer cancel()
	digest, err := image.Tag(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return TagState{TagError: fmt.Sprintf("%s: no answer within %v", image.Ref, tagLimit)}
	case err != nil:
		return TagState{TagError: err.Error()}
	case digest == "":
		return TagState{}
	}
	moved := digest != image.Digest
	return TagState{TagMoved: &moved, TagDigest: digest}
}

// askTag asks the daemon of a mount for the state of its tag.
func askTag(ctx context.Context, m *mounts.Mount) *TagState {
	t := new(TagState)
	if err := ask(ctx, m, "/tag", tagLimit+mounts.ProbeLimit, t); err != nil {
		t.TagError = "its process does not tell: " + err.Error()
	}
	return t
}
