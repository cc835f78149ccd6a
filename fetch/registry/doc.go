// Package registry speaks the distribution API of OCI registries: a Repository is an
// artifact.Source that reads one image, an Uploader brings blobs and manifests, Describe tells how
// a registry would be reached. It promises that what a server sends is bounded in memory and time,
// that requests are tried again only where that may help, and that no error or log line holds a
// credential or a signed URL. It does not know what a blob means, and verifies no signature.
//
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
package registry
