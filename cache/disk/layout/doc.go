/*
Package layout is the cache directory as it is on disk: its names and modes, what stands in its
files, and the system calls that open them. It promises that every name is opened relative to a
descriptor and without following symlinks, that what it makes is 0700, 0600 or 0400 whatever the
umask, and that a directory in which others could plant files is refused. It does not know when
blobs are filled, checked or evicted.
*/
package layout
