package fetch

import (
	"slices"
	"strings"
	"sync"
)

// parents are the repositories of the destination's registry from which it may take blobs that it has there.
type mountSources struct {
	mu    sync.Mutex // guards repos
	repos []string
}

// newParents reads the repositories that the user names, with or without the registry's host. The repository that the
// image itself is read from comes first, when it is at the same registry.
func newMountSources(dst, source Ref, names []string) (*mountSources, error) {
	p := &mountSources{}
	if source.kind == Registry && source.host == dst.host {
		p.repos = append(p.repos, source.repo)
	}
	for _, name := range names {
		repo, err := repoAt(dst.host, name)
		if err != nil {
			return nil, err
		}
		p.repos = append(p.repos, repo)
	}
	seen := map[string]bool{dst.repo: true}
	p.repos = slices.DeleteFunc(p.repos, func(repo string) bool {
		again := seen[repo]
		seen[repo] = true
		return again
	})
	return p, nil
}

// repoAt reads a repository's name, which may begin with its host: that must be host.
func repoAt(host, name string) (string, error) {
	repo := name
	if first, rest, ok := strings.Cut(name, "/"); ok && looksLikeHost(first) {
		at, err := cleanHost(name, first)
		if err != nil {
			return "", err
		}
		if at != host {
			return "", badRef(name, "that is at another registry than %s, which can take no blobs from there", host)
		}
		repo = rest
	}
	return repo, checkRepo(name, repo)
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
