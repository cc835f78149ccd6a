package fetch

import (
	"slices"
	"sync"

	"github.com/pfmount/pfmount/fetch/ref"
)

// parents are the repositories of the destination's registry from which it may take blobs that it has there.
type mountSources struct {
	mu    sync.Mutex // guards repos
	repos []string
}

// newParents reads the repositories that the user names, with or without the registry's host. The repository that the
// image itself is read from comes first, when it is at the same registry.
func newMountSources(dst, source ref.Ref, names []string) (*mountSources, error) {
	p := &mountSources{}
	if source.Kind() == ref.Registry && source.Host() == dst.Host() {
		p.repos = append(p.repos, source.Repo())
	}
	for _, name := range names {
		repo, err := ref.RepoAt(dst.Host(), name)
		if err != nil {
			return nil, err
		}
		p.repos = append(p.repos, repo)
	}
	seen := map[string]bool{dst.Repo(): true}
	p.repos = slices.DeleteFunc(p.repos, func(repo string) bool {
		again := seen[repo]
		seen[repo] = true
		return again
	})
	return p, nil
}

func (p *mountSources) list() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.repos)
}

// drop leaves a repository out from now on.
func (p *mountSources) drop(repo string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.repos = slices.DeleteFunc(p.repos, func(r string) bool { return r == repo })
}
