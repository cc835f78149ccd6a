package e2e

import (
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// TestLoginElsewhere: registries and token servers on other machines, without TLS. A login goes
// there with --plain-http only, and a token server on this machine is believed of a registry on
// this machine only.
func TestLoginElsewhere(t *testing.T) {
	t.Parallel()
	const other, third, here = "192.0.2.1", "192.0.2.2", "127.0.0.1"
	tests := []struct {
		name, registry, realm string
		identity              bool
		options               []string
		code                  int
		says                  string
		told                  bool // the token server gets the credentials
	}{
		{"registry elsewhere", other, other, false, nil, 5, "--plain-http", false},
		{"registry elsewhere, allowed", other, other, false, []string{"--plain-http"}, 0, "", true},
		{"both elsewhere, allowed", other, third, false, []string{"--plain-http"}, 0, "", true},
		{"identity token elsewhere", other, other, true, nil, 5, "--plain-http", false},
		{"identity token elsewhere, allowed", other, other, true, []string{"--plain-http"}, 0, "", true},
		{"registry here, tokens elsewhere", here, other, false, nil, 5, "--plain-http", false},
		{"registry here, tokens elsewhere, identity token", here, other, true, nil, 5, "--plain-http", false},
		{"registry here, tokens elsewhere, allowed", here, other, false, []string{"--plain-http"},
			0, "", true},
		{"both here", here, here, false, nil, 0, "", true},
		{"here by another address", here, "127.0.0.2", false, nil, 0, "", true},
		{"registry elsewhere, tokens here", other, here, false, []string{"--plain-http"}, 5,
			"blocked", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			space := harness.Network(t, other, third)
			e.Prefix = space.Prefix()
			g := guard(t, e, at{space.Listen, tt.registry + ":5000", tt.realm + ":5001"})
			config := authFile(g.Host(), "u", "p:w")
			if tt.identity {
				g.tokens.Refresh = map[string]string{"identity": "u"}
				config = []byte(`{"auths":{"` + g.Host() + `":{"identitytoken":"identity"}}}`)
			}
			writeBelow(t, e, "home/.docker/config.json", config, 0o600)
			e.Run(append(append([]string{"inspect"}, tt.options...), g.ref)...).Want(t, tt.code, tt.says)
			told := false
			for _, x := range g.realm.Log() {
				told = told || x.Header.Get("Authorization") != "" || x.Method == "POST"
			}
			if told != tt.told {
				t.Errorf("the token server was told who asks: %v, want %v", told, tt.told)
			}
			for _, x := range g.Log() {
				if tt.code != 0 && x.Header.Get("Authorization") != "" {
					t.Errorf("the registry got %q", x.Header.Get("Authorization"))
				}
			}
		})
	}
}
