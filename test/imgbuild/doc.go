// Package imgbuild writes signed ProcessFork images without the product's help, so that the product
// is tested against a second reading of the format. It promises that what a Spec says is what the
// image holds, byte for byte, good or hostile; it knows nothing of registries, mounts or testing.T,
// so that programs (demo, benchmarks) can use it as well as tests.
//
// An image is built from a Spec, or read from an OCI layout, and may then be spoiled before it is
// written somewhere:
//
//	img, err := imgbuild.Build(imgbuild.Spec{Entries: []imgbuild.Entry{
//		imgbuild.Dir("bin", "0755"),
//		imgbuild.File("bin/tool", "0755", imgbuild.Text("#!/bin/sh\necho hello\n")),
//		imgbuild.Symlink("latest", "bin/tool"),
//	}})
//	img, err := imgbuild.FromLayout("testdata/fixtures/layout", "basic")
//
//	d := img.Digest("world/fs/bin/tool")    // logical digest; also "world.fs", "model/base", "cache/pages/00000000.k"
//	img.Layer(d).SetWire([]byte("no zstd")) // other bytes under that name, with an honest descriptor
//	img.Layer(d).Size++                     // a descriptor that lies
//	img.Drop(d)                             // a missing layer
//	img.SetManifest(raw, key)               // another pf manifest, signed again; SetSignature for a raw signature
//
//	img.WriteLayout(dir, "tag"); img.WriteFolder(dir); img.WriteStore(dir) // or faultreg's Push and Serve
//
// Content is written again at each use, so that a file of 3 GB (Pattern) or a tree of a million
// entries (Seq) never stands in memory; what is compressed to more than 1 MiB is kept in Spec.Dir.
package imgbuild
