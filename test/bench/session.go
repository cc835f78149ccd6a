package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/pfmount/pfmount/test/bench/report"
	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// session is the tree in all its forms: a folder, an image in a registry, and what each peer mounts.
type session struct {
	*place
	opts   options
	srv    *faultreg.Server
	ref    string
	img    *imgbuild.Image
	plain  string           // the folder of the plain tree
	peers  []peer           // what it takes to mount it with each
	broken map[string]error // why a peer cannot be measured, by name
	caches map[string]int   // how many caches of a name there were
}

func newSession(ctx context.Context, p *place, o options) (_ *session, err error) {
	s := &session{place: p, opts: o, plain: p.path("plain"), peers: peers(), broken: map[string]error{}}
	if err := o.shape.write(ctx, s.plain); err != nil {
		return nil, err
	}
	s.img, err = imgbuild.Build(imgbuild.Spec{Seq: o.shape.entries(), Dir: p.dir})
	if err != nil {
		return nil, err
	}
	s.srv, err = faultreg.New(faultreg.Options{})
	if err != nil {
		return nil, err
	}
	// As it stands: distribution would take minutes to keep the large file in memory.
	s.srv.Serve(s.img, "bench/session", "v1")
	s.ref = s.srv.Ref("bench/session", "v1")
	for _, peer := range s.peers {
		err := installed(peer.needs...)
		if err == nil && peer.prepare != nil {
			err = peer.prepare(ctx, s)
		}
		if ctx.Err() != nil {
			return nil, errors.Join(err, s.srv.Close())
		}
		if err != nil {
			s.broken[peer.name] = err
		}
	}
	return s, nil
}

// describe says what the tree is.
func (s *session) describe() string {
	var wire, small int64
	for _, l := range s.img.Layers {
		wire += l.Size
	}
	for e := range s.opts.shape.entries() {
		if e.Content != nil {
			small += e.Content.Size()
		}
	}
	small -= s.opts.shape.big
	b := func(n int64) string { return report.Format(float64(n), report.Bytes) }
	return fmt.Sprintf("The tree: %d folders of %d files (%s in all) and one file of %s; as an image %d layers, %s on the wire, a manifest of %s, served ready-made.",
		s.opts.shape.folders, s.opts.shape.files, b(small), b(s.opts.shape.big), len(s.img.Layers), b(wire), b(int64(len(s.img.OCIManifest()))))
}
