// Package crash ends pfmount and its disk in the middle of things: kill -9 and power cuts at random
// instants, disks and quotas that are full, file systems that turn read-only. After each the cache
// is audited byte for byte by code that shares nothing with the product's, and a mount must show
// exactly the source.
//
// PFMOUNT_CRASH_ROUNDS and PFMOUNT_CRASH_SEED set the number of rounds, of which make soak
// runs more, and repeat a run; seed 0 draws one.
package crash
