package fetch

import (
	"context"

	"github.com/pfmount/pfmount/fetch/sched"
)

type priorityKey struct{}

// WithPriority returns a context whose requests have that priority. Without it they are a Reader's.
// It goes by the context since it passes through the client of another library.
func WithPriority(ctx context.Context, p *sched.Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

func priorityOf(ctx context.Context) *sched.Priority {
	if p, ok := ctx.Value(priorityKey{}).(*sched.Priority); ok {
		return p
	}
	return new(sched.Priority)
}

// WaitIdle waits until no reader and no readahead has a request under way or waiting, and the last
// failure is some time past: then a fetch in the background disturbs neither. It does not wait
// where no network is in use.
func (im *Image) WaitIdle(ctx context.Context) error {
	if reg, ok := im.src.(*registry); ok {
		return reg.limiter.WaitIdle(ctx)
	}
	return ctx.Err()
}
