package faultreg

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/distribution/distribution/v3/registry/auth"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd" // controller by name
	"golang.org/x/crypto/bcrypt"
)

// Passwords lets only requests with one of these passwords (by name) through to a registry, with Basic, as
// distribution does it; dir is a folder for the htpasswd file. It fits Options.Wrap.
func Passwords(users map[string]string, dir string) (func(http.Handler) http.Handler, error) {
	var lines strings.Builder
	for user, password := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&lines, "%s:%s\n", user, hash)
	}
	path := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
		return nil, err
	}
	control, err := auth.GetAccessController("htpasswd", map[string]any{"realm": tokenService, "path": path})
	if err != nil {
		return nil, err
	}
	return func(next http.Handler) http.Handler {
		return guard{control, func(string) bool { return false }, next}
	}, nil
}

// guard is a registry's front that lets authorized requests through.
type guard struct {
	control auth.AccessController
	revoked func(token string) bool
	next    http.Handler
}

func (g guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var access []auth.Access
	if _, repo, _ := parsePath(r.URL.Path); repo != "" {
		actions := []string{"pull"}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			actions = append(actions, "push")
		}
		for _, a := range actions {
			access = append(access, auth.Access{Resource: auth.Resource{Type: "repository",
				Name: repo}, Action: a})
		}
	}
	asked := r
	if _, raw, _ := strings.Cut(r.Header.Get("Authorization"), " "); g.revoked(raw) {
		asked = r.Clone(r.Context())
		asked.Header.Del("Authorization")
	}
	_, err := g.control.Authorized(asked, access...)
	if err == nil {
		g.next.ServeHTTP(w, r)
		return
	}
	if c, ok := err.(auth.Challenge); ok {
		c.SetHeaders(r, w)
	}
	Answer(http.StatusUnauthorized,
		`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`,
		"Content-Type", "application/json")(w, r, nil)
}
