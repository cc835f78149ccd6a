// Package soak is the fault harness: for as many minutes as it is told it reads mounts that share
// caches, compares every byte with the source, and meanwhile breaks the network, the registry, the
// cache's files, its disk and the daemons. It promises that it fails on one wrong byte, one error
// that no fault explains, one read over the bound, one leaked process, mount, goroutine or
// descriptor, one leftover in a cache, and when a kind of fault never acted.
//
//	go test ./soak -v -count=1 -timeout 1h -minutes 30 -seed 7   # make soak MINUTES=30 SEED=7; -trace prints every action
//
// A round is about a minute. In it two lanes, wire and local, go through all their kinds of faults,
// each lane in an order and with numbers that follow from the seed and the round (plan.go); beside
// them readers (reader.go) and commands (commands.go) work. A round ends with no fault on:
// everything must read right again, and the caches and daemons are audited (audit.go). The same
// seed gives the same plan; what meets what in time differs from run to run.
//
// How it judges (judge.go): while a fault is on, and for a grace derived from documented limits
// after it, it excuses the errors that it names, on the mount that it names. Damage in the cache,
// eviction, slow networks, redirects and moved tags excuse nothing. Bytes are never excused.
//
// Readers are processes of their own (this test's binary again), since they are killed, get
// signals, and may die of SIGBUS; also a process that serves a registry must not map files of a
// mount that needs it.
package soak
