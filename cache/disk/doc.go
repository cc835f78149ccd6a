/*
Package disk keeps blobs in a directory that processes share: names, locks, quota, eviction, checks.
It promises that a blob is returned only when its bytes are those of its key, that one process at a
time fills a key, and that the directory stays within a number of bytes, whatever process dies when.
It does not know what a blob holds, what fills it, or which blobs a process has open.

# Format

	blobs/<aa>/<hex>        a complete blob, mode 0400, its mtime derived from its key
	blobs/<aa>/<hex>.sums   a sum of each MiB of a blob over 8 MiB
	tmp/<hex>               a blob being filled, locked by the process that fills it
	records/<hex>           small named records
	usage                   bytes on disk, and the boot in which they were counted
	evict.lock              held while the directory is counted and blobs are evicted

The directory is the truth: there is no database and no managing process. All of it is 0700, 0600
and 0400 whatever the umask, and every name in it is opened relative to a descriptor and without
following symlinks. What is not a regular file of this user is removed when it is in a blob's place.
A directory that others own or may write, or on a file system without flock, is refused; one that
was deleted, replaced or opened to others while in use is noticed by Watch and opened anew, under
the same rules.

# Fills

The lock of a fill is an flock on tmp/<hex>, polled, never waited for in the kernel. When its holder
dies, a process that waits starts the file over. A process that waited for another's fill for 10
seconds and more takes over its failure, too: N processes that each tried for 30 seconds would let
the last reader wait N times as long.

# The limit

usage never holds less than what is on disk, directories included: under its lock the bytes of a
file are added before the file gets its name; those of removed files stay in it until the next
count. A process that would cross the limit scans and evicts down to 90 % first, by atime, and
writes the true sum. A blob that does not fit, because it is larger than the limit or less than
MinFree of the disk is free, gets no name: its file is gone when it is closed. Recency is the atime
of the files, set when a blob comes into use and then about once a minute, never by a read.

# Crashes

A process that is killed leaves partial files without a lock, which Clean removes, and at worst a
number in usage that is too high or whose second copy differs (see below), and a sidecar without its
blob. The next count puts both right. Blobs, sidecars and records get their names whole, so there is
nothing to repair in them. A file or directory that the process made under a umask that takes from
the owner, and did not come to chmod, gets its mode when it is next opened.

# Power cuts

Nothing is synced. A rename may reach the disk before the bytes of the file do, so after a power cut
a file may have its name, its mode and its times, and be short or hold zeros or what was on the disk
before. That file is noticed before a byte of it is served and before its length is told: its
content is hashed at its first use in each process (over 8 MiB: each chunk, against a sidecar that
also says how long the blob is), and a process does not outlive a power cut. For the same reason a
torn sidecar or record is noticed: each holds its own SHA-256. The number in usage may come back
older than the files. It is kept a second time as the file's mtime, which a journal keeps in step
with the renames: when the two differ the directory is counted before anything is added. For file
systems without a journal it is counted after each boot, too, in the background of the first fill. A
partial file without a lock is a leftover.

# Damage

At each opening size, owner, mode and mtime are checked. A file whose mode or mtime is not what its
fill gave it is hashed, whatever the mode of verification. Blobs over 8 MiB are checked MiB by MiB
as they are read.

# Bounds

About ten descriptors in passing beside those of the blobs that are returned; 8 MiB of buffers to
hash, 2 MiB to remember what was hashed, 10 MiB while evicting, and 8 bytes per MiB of each open
blob over 8 MiB.
*/
package disk
