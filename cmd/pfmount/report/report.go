// Package report prints what commands have to tell: tables and JSON on standard output, progress on
// standard error. The JSON objects are part of each command's contract and only gain fields.
//
// It does not know command lines, nor how what it prints came about.
package report
