package sched

import "context"

type priorityKey struct{}

// WithPriority returns a context whose requests have that priority. Without it they are a Reader's.
// It goes by the context since it passes through the client of another library.
func WithPriority(ctx context.Context, p *Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// PriorityOf returns the priority that WithPriority gave a context.
func PriorityOf(ctx context.Context) *Priority {
	if p, ok := ctx.Value(priorityKey{}).(*Priority); ok {
		return p
	}
	return new(Priority)
}
