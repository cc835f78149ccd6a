package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// tagLimit bounds how long a daemon asks where its image's tag points.
const tagLimit = 10 * time.Second

// tagState says whether the tag that a mount was made by has moved on. The mount keeps its digest all the same. Only the
// daemon can tell: it has the credentials and options of the mount.
type tagState struct {
	TagMoved  *bool  `json:"tag_moved"`  // nil: mounted by no tag, or it cannot be told
	TagDigest string `json:"tag_digest"` // what it names now
	TagError  string `json:"tag_error,omitempty"`
}

// serveTag answers /tag.
func (d *daemon) serveTag(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), tagLimit)
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(d.tag(ctx))
}

func (d *daemon) tag(ctx context.Context) tagState {
	image := d.session.image
	digest, err := image.Resolve(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return tagState{TagError: fmt.Sprintf("%s: no answer within %v", image.Ref(), tagLimit)}
	case err != nil:
		return tagState{TagError: err.Error()}
	case digest == "":
		return tagState{}
	}
	moved := digest != image.Digest()
	return tagState{TagMoved: &moved, TagDigest: digest}
}

// askTag asks the daemon of a mount for the state of its tag.
func askTag(ctx context.Context, m *mounts.Mount) *tagState {
	t := new(tagState)
	if err := ask(ctx, m, "/tag", tagLimit+mounts.ProbeLimit, t); err != nil {
		t.TagError = "its process does not tell: " + err.Error()
	}
	return t
}
