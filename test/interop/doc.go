// Package interop holds the tests against the reference tool, pf 1.0.15: what one of the two
// captures, pushes, pulls or stores, the other reads byte for byte and under the same id. It has
// tests only. make interop installs the tool, under $XDG_CACHE_HOME/pfmount-test, and runs them.
package interop
