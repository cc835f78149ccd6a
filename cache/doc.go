/*
Package cache keeps verified blobs in a directory, least recently used out first. It promises that a reader gets the
bytes that the key promises, or an error, whatever happened to the directory; that one fill runs per key, however
many readers and processes want it; and that the directory stays within a number of bytes. It knows nothing of
images, registries or mounts: a key is the SHA-256 of a blob's bytes, and a Fill brings them.

# The directory

	blobs/<aa>/<hex>        a complete blob, mode 0400, its mtime derived from its key
	blobs/<aa>/<hex>.sums   a sum of each MiB of a blob over 8 MiB
	tmp/<hex>               a blob being filled, locked by who fills it
	records/<hex>           small named records
	usage                   bytes on disk, and the boot in which they were counted
	evict.lock              held by who counts and evicts

The directory is the truth: there is no database and no managing process. All of it is 0700, 0600 and 0400 whatever
the umask, and every name in it is opened relative to a descriptor and without following symlinks. What is not a
regular file of this user is removed when it is in a blob's place. A directory that others own or may write, or on a
file system without flock, is refused; one that was deleted, replaced or opened to others while in use is noticed within
seconds and opened anew, under the same rules: while they do not let it, the disk counts as in trouble, see below.

# Fills

A fill belongs to nobody: it runs in a goroutine of the Store until it is done, fails or the Store closes, and readers
come and go. Between processes the lock is an flock on tmp/<hex>, polled, never waited for in the kernel. When its
holder dies a waiter starts the file over. A failure is answered without a new try for a second, then forgotten. A
process that waited for another's fill for 10 seconds and more takes over its failure, too: N processes that each
tried for 30 seconds would let the last reader wait N times as long. Close waits three seconds for fills to heed their
ctx, then leaves them behind with an error.

# The limit

usage never holds less than what is on disk, directories included: under its lock the bytes of a file are added before
the file gets its name; those of removed files stay in it until the next count. Whoever would cross the limit scans and
evicts down to 90 % first, by atime, and writes the true sum. A blob that cannot be fitted in, be it larger than the
limit or while less than MinFree of the disk is free, is served from its file without a name, which is gone when it
is closed. Recency is the atime of the files, set when a blob comes into use and then about once a minute, never by a
read.

# Crashes

A process that is killed leaves partial files without a lock, which the next Store removes when it starts, and at worst a
number in usage that is too high or whose second copy differs (see below), and a sidecar without its
blob. The next count puts both right. Blobs, sidecars and records get their names whole, so there is
nothing to repair in them. A file or directory that the process made under a umask that takes from
the owner, and did not come to chmod, gets its mode when it is next opened.

# Power cuts

Nothing is synced. A rename may reach the disk before the bytes of the file do, so after a
power cut a file may have its name, its mode and its times, and be short or hold zeros or what was on the disk before.
That file is noticed before a byte of it is served and before its length is told: its content is hashed at its first use
in each process (over 8 MiB: each chunk, against a sidecar that also says how long the blob is), and a process does not
outlive a power cut. For the same reason a torn sidecar or record is noticed: each holds its own SHA-256. The number in
usage may come back older than the files. It is kept a second time as the file's mtime, which a journal keeps in step
with the renames: when the two differ the folder is counted before anything is added. For file systems without a journal
it is counted after each boot, too, in the background of the first fill. A partial file without a lock is a leftover.

# Damage

At each opening size, owner, mode and mtime are checked. A file whose mode or mtime is not what its fill gave it is
hashed, whatever the mode of verification. Blobs over 8 MiB are checked MiB by MiB as they are read. A damaged blob is
dropped and filled again, once per Open; a File that meets damage in ReadAt does that by itself.

# Trouble

On a full disk, or with the user's quota used up, blobs are evicted and the write is tried once more. If that does not
help, or the directory cannot be written, blobs up to 8 MiB are served from memory; larger ones fail with the disk's
error. Each fill tries the disk again. One warning of a kind a minute tells.
Without the disk there are no locks, so each process then fills for itself.

# Bounds

Descriptors: Options.OpenFiles for blobs and fills, and about ten more in passing; fills use three quarters at most.
Memory: 64 MiB of blobs that the disk did not take, 8 MiB of buffers to hash, 2 MiB to
remember what was hashed, 10 MiB while evicting, and 8 bytes per MiB of each open blob over 8 MiB.
*/
package cache
