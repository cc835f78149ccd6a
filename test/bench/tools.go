package main

import (
	"context"
	"os"
	"path/filepath"
)

// journey is where one push or pull goes.
type journey struct {
	*carrier
	repo string // that is pushed to, in the registry
	dir  string // that is pulled into
}

// to is the reference that is pushed to, from the one that is pulled.
func (j journey) to() string   { return j.srv.Ref(j.repo, "v1") }
func (j journey) from() string { return j.srv.Ref("carry/source", "v1") }

// tool is a program that carries images.
type tool struct {
	name    string
	version string
	says    string // what it does
	absent  string // why it is not measured, and how to get it; "": it is there
	slow    bool   // once has to do, and not everywhere
	push    func(journey) []string
	pull    func(journey) []string
	env     func(j journey, way string) []string // added to the environment; nil: nothing
}

// tools are pfmount and its peers; those that are not installed say how they would be.
func (p *place) tools(ctx context.Context) ([]tool, error) {
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, err
		}
		base = filepath.Join(home, ".cache")
	}
	base = filepath.Join(base, "pfmount-test")
	pf, oras := filepath.Join(base, "pf/bin/pf"), filepath.Join(base, "oras/bin/oras")
	list := []tool{
		{
			name: "pfmount", says: "proves every blob, then pushes from a layout; pulls into a store",
			push: func(j journey) []string {
				return []string{p.binary, "push", "-q", "oci-layout:" + j.layout + ":v1", j.to()}
			},
			pull: func(j journey) []string {
				return []string{p.binary, "pull", "-q", "--store", j.dir, j.from(), "store:"}
			},
		},
		{
			name: "oras copy", says: "--concurrency 32, from and to a layout",
			push: func(j journey) []string {
				return []string{oras, "copy", "--no-tty", "--concurrency", "32",
					"--from-oci-layout", "--to-plain-http", j.layout + ":v1", j.to()}
			},
			pull: func(j journey) []string {
				return []string{oras, "copy", "--no-tty", "--concurrency", "32",
					"--from-plain-http", "--to-oci-layout", j.from(), j.dir + ":v1"}
			},
		},
		{
			name: "pf", says: "the reference tool, from and to a store; measured once, and with -full over distance, too", slow: true,
			push: func(j journey) []string { return []string{pf, "push", "sha256:" + j.img.CID(), "oci://" + j.to()} },
			pull: func(j journey) []string { return []string{pf, "pull", "oci://" + j.from()} },
			env: func(j journey, way string) []string {
				if way == "push" {
					return []string{"PF_STORE=" + j.store}
				}
				return []string{"PF_STORE=" + j.dir}
			},
		},
	}
	for i, look := range []struct{ path, get string }{
		{p.binary, ""},
		{oras, "not installed: GOBIN=" + filepath.Dir(oras) + " go install oras.land/oras/cmd/oras@v1.3.6"},
		{pf, "not installed: make interop, or test/interop/setup.sh, builds it (8 minutes)"},
	} {
		t := &list[i]
		if _, err := os.Stat(look.path); err != nil {
			t.absent = look.get
			continue
		}
		version := "--version"
		if t.name == "oras copy" {
			version = "version"
		}
		text, err := p.run(ctx, "", look.path, version)
		if err != nil {
			return nil, err
		}
		t.version = versionNumber.FindString(text)
	}
	return list, nil
}
