package fetch

import "sync/atomic"

// counters count what an image fetched.
type counters struct{ requests, bytes atomic.Int64 }
