package registry

import (
	"slices"
	"sync"

	"github.com/pfmount/pfmount/fetch/ref"
)

// mountSources are the repositories of the destination's registry from which it may take blobs
// that it has there.
type mountSources struct {
	mu    sync.Mutex // guards repos
	repos []string
}

// MountFrom returns the repositories that the registry of dst may take blobs from: the one that the
// image is read from, when it is at the same registry, then those that the user names, with or
// without the registry's host.
func MountFrom(dst, source ref.Ref, names []string) ([]string, error) {
	var repos []string
	if source.Kind() == ref.Registry && source.Host() == dst.Host() {
		repos = append(repos, source.Repo())
	}
	for _, name := range names {
		repo, err := ref.RepoAt(dst.Host(), name)
		if err != nil {
			return nil, err
		}
		repos = append(repos, repo)
	}
	seen := map[string]bool{dst.Repo(): true}
	return slices.DeleteFunc(repos, func(repo string) bool {
		again := seen[repo]
		seen[repo] = true
		return again
	}), nil
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
