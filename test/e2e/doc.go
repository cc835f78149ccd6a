// Package e2e holds the end-to-end tests: the built binary, real registries, real mounts, real tools. It
// has tests only; what they stand on is package harness.
package e2e
