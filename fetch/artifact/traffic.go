package artifact

import "sync/atomic"

// Counters count what an image fetched.
type Counters struct{ Requests, Bytes atomic.Int64 }
