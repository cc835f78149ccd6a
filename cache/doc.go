/*
Package cache keeps verified blobs on disk for the readers of one process: one open file and one
fill a key. It promises that a reader gets the bytes that the key promises, or an error, whatever
happened to the directory; that one fill runs per key, however many readers and processes want it;
and that descriptors and memory stay within bounds. It knows nothing of images, registries or
mounts: a key is the SHA-256 of a blob's bytes, and a Fill brings them. The directory, which
processes share, is that of package disk.

# Fills

A fill belongs to no reader: it runs in a goroutine of the Store until it is done, fails or the
Store closes, and readers come and go. A failure is answered without a new try for a second, then
forgotten. Close waits three seconds for fills to heed their ctx, then leaves them behind with an
error.

# Damage

A damaged blob is dropped and filled again, once per Open; a File that meets damage in ReadAt does
that by itself.

# A disk that fails

On a full disk, or with the user's quota used up, blobs are evicted and the write is tried once
more. If that does not help, or the directory cannot be written, blobs up to 8 MiB are served from
memory; larger ones fail with the disk's error. Each fill tries the disk again. One warning of a
kind a minute is logged. Without the disk there are no locks, so each process then fills for
itself.

# Bounds

Descriptors: Options.OpenFiles for blobs and fills, and about ten more in passing; fills use three
quarters at most. Memory: 64 MiB of blobs that the disk did not take, and what package disk uses.
*/
package cache
