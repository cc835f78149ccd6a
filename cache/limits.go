package cache

import (
	"time"

	"github.com/pfmount/pfmount/cache/disk"
)

// limits are the package's numbers in one place, so that tests can shrink them.
type limits struct {
	disk.Limits
	memory     int64         // all blobs served from memory together, each up to Limits.Small
	idle       time.Duration // an open file unused for so long is closed
	tick       time.Duration // how often the janitor looks
	failureTTL time.Duration // how long a failure is answered without a new try
	leave      time.Duration // longest wait of Close for fills that do not end
}

func defaults() limits {
	return limits{
		Limits:     disk.DefaultLimits(),
		memory:     64 << 20,
		idle:       10 * time.Second,
		tick:       2500 * time.Millisecond,
		failureTTL: time.Second,
		leave:      3 * time.Second,
	}
}
