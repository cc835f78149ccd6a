// Package local keeps images on disk: OCI image layouts, folders as the reference tool's file
// registry has them, and local ProcessFork stores. It reads them as an artifact.Source, and a
// Writer brings an image to one: blobs first, each whole, and last what makes the place show the
// image, so that a power cut leaves a whole image or none.
//
// It does not know where an image comes from, and verifies nothing of what it reads but digests
// that name it.
package local
