// Package environ makes the environment of this process fit to use before anything reads it: it
// drops folders that another user could change, and sets a missing HOME.
//
// It does not know what the folders are for.
package environ
