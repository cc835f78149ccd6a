// Package cmdline reads command lines. It turns what a user or mount(8) types into what the cli
// library parses, and completes a word of it.
//
// It knows the shape of a command line: which words are commands, options and their values. It does
// not know what a command does; candidates that depend on the machine come from its caller.
package cmdline
