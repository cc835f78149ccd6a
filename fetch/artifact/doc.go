// Package artifact turns the stored bytes of an OCI artifact into verified blobs: it parses the OCI
// manifest, finds the layers that claim a blob, decodes them within bounds, and hands over only
// bytes that hash to the digest they are asked for by. It promises that whatever a layer holds is
// bounded in memory, time and decoded bytes, and that bytes which an earlier failure wrote are
// taken back by Sink.Reset.
//
// It does not know where stored bytes come from (a Source does), nor what a blob means.
//
// Memory under load: each blob of more than 1 MiB that is under way holds a zstd window of at most
// 8 MiB and 2 MiB of buffers. The number given to NewDecoders bounds how many are under way at
// once; the others wait and hold nothing. One at a time may have a window of up to 128 MiB.
package artifact
