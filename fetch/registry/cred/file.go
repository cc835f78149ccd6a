package cred

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/safetext"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// maxCredFile bounds a login file, in bytes: those of people with hundreds of registries have some
// 100 KiB.
const maxCredFile = 1 << 20

// HubKey is the name under which docker login keeps the login of Docker Hub.
const HubKey = "https://index.docker.io/v1/"

// loginFile is what docker login and podman login write.
// https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md
type loginFile struct {
	Auths       map[string]entry  `json:"auths"`
	CredHelpers map[string]string `json:"credHelpers"`
	CredsStore  string            `json:"credsStore"`
}

type entry struct {
	Auth          string `json:"auth"` // base64 of USER:PASSWORD
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
}

// Keys are the names under which a repository's login may be kept, most specific first.
type Keys struct {
	paths []string // host/org/repo, host/org
	hosts []string // host, https://host, …
	ask   string   // what credential helpers are asked for
}

// Names returns the names of a repository at an endpoint. Docker Hub answers to many.
func Names(host, repo string) Keys {
	k, names := Keys{ask: host}, []string{host}
	if host == ref.DockerAPI {
		k.ask, k.hosts = HubKey, []string{HubKey}
		names = []string{ref.DockerHub, "index.docker.io", ref.DockerAPI}
	}
	path := names[0] + "/" + repo
	for path != names[0] {
		k.paths = append(k.paths, path)
		path = path[:strings.LastIndexByte(path, '/')]
	}
	for _, name := range names {
		k.hosts = append(k.hosts, name)
		for _, scheme := range []string{"https://", "http://"} {
			for _, end := range []string{"", "/", "/v1", "/v1/", "/v2", "/v2/"} {
				k.hosts = append(k.hosts, scheme+name+end)
			}
		}
	}
	return k
}

// Files lists where logins are kept. The paths are absolute: a mount changes its folder.
func Files(getenv func(string) string) []string {
	var files []string
	add := func(dir string, below ...string) {
		if dir == "" {
			return
		}
		path, err := filepath.Abs(filepath.Join(append([]string{dir}, below...)...))
		if err == nil && !slices.Contains(files, path) {
			files = append(files, path)
		}
	}
	add(getenv("REGISTRY_AUTH_FILE"))
	if run := getenv("XDG_RUNTIME_DIR"); run != "" {
		add(run, "containers", "auth.json")
	} else {
		add("/run/containers", strconv.Itoa(os.Getuid()), "auth.json") // podman's place then
	}
	if config := getenv("XDG_CONFIG_HOME"); config != "" {
		add(config, "containers", "auth.json")
	}
	add(getenv("HOME"), ".config", "containers", "auth.json")
	add(getenv("DOCKER_CONFIG"), "config.json")
	add(getenv("HOME"), ".docker", "config.json")
	return files
}

// Found is what the login files say of an endpoint.
type Found struct {
	Cred     auth.Credential
	Source   string   // "": they say nothing
	Problems []string // what could not be asked
}

// Find looks through the files, as they are now. A file that cannot be understood is an error.
// A helper that fails ends the search: what it knows comes before all that follows, so the endpoint
// is asked without credentials.
func Find(ctx context.Context, files []string, keys Keys) (Found, error) {
	var found Found
	for _, path := range files {
		f, err := readCredFile(path)
		switch {
		case errors.Is(err, fs.ErrPermission):
			text := "the login file " + safetext.Clip(path, 255) + " may not be read"
			found.Problems = append(found.Problems, text)
			continue
		case err != nil:
			return found, err
		}
		c, source, err := f.find(ctx, path, keys)
		var helper *helperError
		if errors.As(err, &helper) {
			found.Problems = append(found.Problems, helper.Error())
			return found, nil
		}
		if err != nil || source != "" {
			found.Cred, found.Source = c, source
			return found, err
		}
	}
	return found, nil
}

// readCredFile reads one file; the zero loginFile when there is none. Errors name the file and
// nothing in it.
func readCredFile(path string) (loginFile, error) {
	var f loginFile
	bad := func(format string, args ...any) error {
		return badFile(path, fmt.Sprintf(format, args...))
	}
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return f, err
	case err != nil:
		return f, nil // not there, or below what is no folder
	case !fi.Mode().IsRegular():
		return f, bad("it is no regular file")
	case fi.Size() > maxCredFile:
		return f, bad("it has %d bytes, the limit is %d", fi.Size(), maxCredFile)
	}
	r, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return f, err
		}
		return f, bad("it cannot be opened")
	}
	defer func() { _ = r.Close() }()
	raw, err := io.ReadAll(io.LimitReader(r, maxCredFile))
	if err != nil {
		return f, bad("it cannot be read")
	}
	if len(raw) == 0 {
		return f, nil // podman makes it so before it writes
	}
	if text := f.parse(raw); text != "" {
		return f, bad("%s", text)
	}
	return f, nil
}

// parse reads a file's JSON and says what is wrong with it, without what json says: that may quote
// a secret.
func (f *loginFile) parse(raw []byte) (wrong string) {
	err := json.Unmarshal(raw, f)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("it is not JSON (byte %d)", syntax.Offset)
	case err != nil:
		return "its JSON is not that of a login file"
	}
	return ""
}

// find returns the login and its source: a login of the repository, or of a path above it, before
// those of the host, and a helper of the host before a login that stands in the file.
func (f loginFile) find(
	ctx context.Context, path string, keys Keys,
) (auth.Credential, string, error) {
	for _, key := range keys.paths {
		if c, source, err := f.entry(path, key); err != nil || source != "" {
			return c, source, err
		}
	}
	if name := f.helper(keys); name != "" {
		c, err := askHelper(ctx, name, keys.ask)
		var failed *helperError
		if errors.As(err, &failed) {
			failed.file = path
		}
		if err != nil {
			return c, "", err
		}
		if c != auth.EmptyCredential {
			return c, describeCred(c) + " from " + helperPrefix + name, nil
		}
	}
	for _, key := range keys.hosts {
		if c, source, err := f.entry(path, key); err != nil || source != "" {
			return c, source, err
		}
	}
	return auth.EmptyCredential, "", nil
}

// helper names the credential helper of the host, "" for none.
func (f loginFile) helper(keys Keys) string {
	for _, key := range keys.hosts {
		if name, ok := f.CredHelpers[key]; ok {
			return name
		}
	}
	return f.CredsStore
}

// entry returns the login under one key. An entry may be empty: a helper has the login then.
func (f loginFile) entry(path, key string) (auth.Credential, string, error) {
	e, ok := f.Auths[key]
	if !ok {
		return auth.EmptyCredential, "", nil
	}
	c := auth.Credential{Username: e.Username, Password: e.Password, RefreshToken: e.IdentityToken}
	if e.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(e.Auth)
		user, password, ok := strings.Cut(strings.TrimRight(string(text), "\x00"), ":")
		if err != nil || !ok {
			return c, "", badFile(path,
				"the auth of "+safetext.Clip(key, 255)+" is not base64 of USER:PASSWORD")
		}
		c.Username, c.Password = user, password
	}
	if c.RefreshToken == "" && (c.Username == "" || c.Password == "") {
		return auth.EmptyCredential, "", nil
	}
	source := describeCred(c) + " of " + safetext.Clip(key, 255) + " in " + safetext.Clip(path, 255)
	return c, source, nil
}

// describeCred says what kind of login it is, never its secret.
func describeCred(c auth.Credential) string {
	if c.RefreshToken != "" {
		return "the identity token"
	}
	return "the user " + safetext.Clip(c.Username, 100)
}

// badFile returns the error of a login file that cannot be understood.
func badFile(path, text string) error {
	return &Error{"the login file " + safetext.Clip(path, 255) + ": " + text}
}
