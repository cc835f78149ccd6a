package ref

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// The names of a registry's images, as in
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests
const (
	repoPart = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
	hostPart = `[a-z0-9](?:[a-z0-9-]*[a-z0-9])?`
	maxName  = 255 // bytes of a host and of a repository's name
)

// Compiled once: they are constants in all but syntax.
var (
	repoForm = regexp.MustCompile(`^` + repoPart + `(?:/` + repoPart + `)*$`)
	hostForm = regexp.MustCompile(`^` + hostPart + `(?:\.` + hostPart + `)*$`)
	tagForm  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// parseRegistry reads host[:port]/repo[:tag][@sha256:…]; whole is what the user typed.
func parseRegistry(whole, s string) (Ref, error) {
	if strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") ||
		s == "." ||
		s == ".." {
		return Ref{}, badRef(whole, "that is a path; write oci-layout:%s or file:///DIR", s)
	}
	r := Ref{kind: Registry}
	if name, digest, ok := strings.Cut(s, "@"); ok {
		d, err := pfimg.ParseDigest(digest)
		if err != nil {
			return Ref{}, badRef(whole, "the digest after @ is not sha256: and 64 hex digits")
		}
		r.digest, r.pinned, s = d, true, name
	}
	host, repo, ok := strings.Cut(s, "/")
	if !ok || !looksLikeHost(host) {
		return Ref{}, noHost(whole, s)
	}
	if i := strings.LastIndexByte(repo, ':'); i > strings.LastIndexByte(repo, '/') {
		r.tag, repo = repo[i+1:], repo[:i]
		if !tagForm.MatchString(r.tag) {
			return Ref{}, badRef(whole,
				"the tag %q is not 1 to 128 of letters, digits, '_', '.', '-', "+
					"starting with neither '.' nor '-'",
				r.tag)
		}
	}
	if r.tag == "" && !r.pinned {
		r.tag = "latest"
	}
	var err error
	if r.host, err = CleanHost(whole, host); err != nil {
		return Ref{}, err
	}
	if r.host == DockerHub && !strings.Contains(repo, "/") && repo != "" {
		repo = "library/" + repo
	}
	if err := checkRepo(whole, repo); err != nil {
		return Ref{}, err
	}
	r.repo = repo
	return r, nil
}

// looksLikeHost tells a host from the first part of a repository's name.
func looksLikeHost(s string) bool {
	return strings.ContainsAny(s, ".:[") || strings.EqualFold(s, "localhost")
}

func noHost(whole, s string) error {
	name, _, _ := strings.Cut(s, ":")
	switch {
	case looksLikeHost(name) && !strings.Contains(s, "/"):
		return badRef(whole, "it names a host and no repository; write HOST/REPOSITORY:TAG")
	case strings.Contains(s, "/"):
		return badRef(whole,
			"it names no registry host; did you mean localhost:5000/%s or docker.io/%s?", s, s)
	}
	return badRef(whole, "it names no registry host; did you mean docker.io/library/%s?", s)
}

func checkRepo(whole, repo string) error {
	switch {
	case repo == "":
		return badRef(whole, "it names no repository; write HOST/REPOSITORY:TAG")
	case len(repo) > maxName:
		return badRef(whole, "the repository's name has %d bytes, the limit is %d", len(repo),
			maxName)
	case repoForm.MatchString(repo):
		return nil
	case repoForm.MatchString(strings.ToLower(repo)):
		return badRef(whole, "a repository's name is lower case; did you mean %s?",
			strings.ToLower(repo))
	}
	return badRef(whole,
		"the repository's name %q is not parts of a-z, 0-9 joined by '.', '_', '-' "+
			"and separated by single '/'",
		repo)
}

// RepoAt reads a repository's name, which may begin with its host: that must be host.
func RepoAt(host, name string) (string, error) {
	repo := name
	if first, rest, ok := strings.Cut(name, "/"); ok && looksLikeHost(first) {
		at, err := CleanHost(name, first)
		if err != nil {
			return "", err
		}
		if at != host {
			return "", badRef(name,
				"that is at another registry than %s, which can take no blobs from there", host)
		}
		repo = rest
	}
	return repo, checkRepo(name, repo)
}

// dockerHub is the name by which people call Docker's registry; dockerAPI is where it answers.
const (
	DockerHub = "docker.io"
	DockerAPI = "registry-1.docker.io"
)

// CleanHost checks host[:port] and returns its canonical form.
func CleanHost(whole, s string) (string, error) {
	host, port, hasPort := s, "", false
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", badRef(whole, "the bracket of the IPv6 address is not closed")
		}
		ip, err := netip.ParseAddr(s[1:end])
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", badRef(whole, "%q in brackets is not an IPv6 address (without a zone)",
				s[1:end])
		}
		host = "[" + ip.String() + "]"
		if rest := s[end+1:]; rest != "" {
			if rest[0] != ':' {
				return "", badRef(whole, "only a port may follow the ']'")
			}
			port, hasPort = rest[1:], true
		}
	} else {
		if strings.Count(s, ":") > 1 {
			return "", badRef(whole,
				"an IPv6 address is written in brackets: [::1]:5000/REPOSITORY")
		}
		host, port, hasPort = strings.Cut(s, ":")
		host = strings.ToLower(host)
		if !hostForm.MatchString(host) || len(host) > maxName {
			return "", badRef(whole, "%q is not a host's name", host)
		}
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return "", badRef(whole, "the port %q is not a number from 1 to 65535", port)
		}
		port = strconv.FormatUint(n, 10)
	}
	switch host {
	case DockerHub, "index.docker.io", DockerAPI:
		if !hasPort || port == "443" {
			return DockerHub, nil
		}
	}
	if hasPort {
		return host + ":" + port, nil
	}
	return host, nil
}

// SplitHost takes host[:port] apart: an IPv6 host loses its brackets.
func SplitHost(s string) (host, port string) {
	if strings.HasPrefix(s, "[") {
		host, port, _ = strings.Cut(s[1:], "]")
		return host, strings.TrimPrefix(port, ":")
	}
	host, port, _ = strings.Cut(s, ":")
	return host, port
}

// IsLoopback says that a host (with or without a port) is this machine: the name localhost or an
// address. Other names are not looked up: 127.0.0.1.evil.example is a stranger, and DNS is no
// proof.
func IsLoopback(hostport string) bool {
	host, _ := SplitHost(hostport)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
