package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestBadSignature: images whose signature is missing, doubled, unknown, or not that of the manifest.
func TestBadSignature(t *testing.T) {
	t.Parallel()
	sig := func(edit func(string) string) func(*imgbuild.Image) {
		return func(m *imgbuild.Image) { m.SetSignature([]byte(edit(string(m.Signature)))) }
	}
	text := func(s string) func(*imgbuild.Image) { return sig(func(string) string { return s }) }
	swap := func(old, now string) func(*imgbuild.Image) {
		return sig(func(s string) string { return strings.Replace(s, old, now, 1) })
	}
	other := func(key string) func(*imgbuild.Image) {
		return func(m *imgbuild.Image) { m.SetSignature(imgbuild.Sign(append(bytes.Clone(m.Manifest), ' '), key)) }
	}
	tests := []struct {
		name  string
		spoil func(*imgbuild.Image)
		key   string // content of --key-file; "": none given
		code  int
		says  string
	}{
		{"none", func(m *imgbuild.Image) { m.Layers = m.Layers[1:] }, "", 4, "no signature"},
		{"two", func(m *imgbuild.Image) { m.Layers = append(m.Layers, m.Layers[0]) }, "", 4, "two signature"},
		{"two, one of another key", func(m *imgbuild.Image) {
			own := m.Layers[0]
			m.SetSignature(imgbuild.Sign(m.Manifest, "other"))
			m.Layers = append(m.Layers, own)
		}, "", 4, "two signature"},
		{"unknown algorithm", text(`{"algorithm":"cosign-key","bundle":{}}`), "", 2, "cosign-key"},
		{"algorithm with controls", text(`{"algorithm":"a\u001b[31m"}`), "", 2, "algorithm"},
		{"no algorithm", text(`{"manifest_digest":"00","signature":"00"}`), "", 4, "algorithm"},
		{"wrong-case name", swap(`"algorithm"`, `"Algorithm"`), "", 4, "algorithm"},
		{"duplicate name", swap(`{`, `{"algorithm":"hmac-sha256",`), "", 4, "duplicate"},
		{"short", swap(`"signature":"`, `"signature":"00","x":"`), "", 4, "64 hex"},
		{"no JSON", text("hello"), "", 4, "signature"},
		{"empty", text(""), "", 4, "signature"},
		{"something behind", sig(func(s string) string { return s + "{}" }), "", 4, "signature"},
		{"nested", swap(`{`, `{"bundle":`+nested(200_000)+`,`), "", 4, "signature"},
		{"2 MiB", swap(`{`, `{"bundle":"`+strings.Repeat("x", 2<<20)+`",`), "", 4, "1048576"},
		{"500 GB", func(m *imgbuild.Image) { m.Layers[0].Size = 500 << 30 }, "", 4, "1048576"},
		{"of another manifest", other(""), "", 4, "signature"},
		{"digest right, code wrong", swap(`"signature":"`,
			`"signature":"`+strings.Repeat("0", 64)+`","was":"`), "", 4, "public default key"},
		{"other wire bytes", func(m *imgbuild.Image) { m.Layers[0].Digest = "sha256:" + strings.Repeat("ab", 32) }, "", 4, "signature"},
		{"key of another", func(m *imgbuild.Image) { m.SetSignature(imgbuild.Sign(m.Manifest, "mine")) }, "yours", 4, "no key that was given"},
		{"public key, own wanted", func(*imgbuild.Image) {}, "yours", 4, "public default key"},
		{"private key, none given",
			func(m *imgbuild.Image) { m.SetSignature(imgbuild.Sign(m.Manifest, "mine")) }, "", 4,
			"--key-file"},
		{"empty key file", func(*imgbuild.Image) {}, "\n", 1, "empty"},
		{"tampered manifest", func(m *imgbuild.Image) {
			m.Manifest = bytes.Replace(m.Manifest, []byte(`"created_at":"2`), []byte(`"created_at":"1`), 1)
		}, "", 4, "signature"},
		{"tampered manifest of schema 9", func(m *imgbuild.Image) { // verified before anything in it is believed
			m.Manifest = bytes.Replace(m.Manifest, []byte(`"schema_version":1`),
				[]byte(`"schema_version":9`), 1)
		}, "", 4, "signature"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, img := harness.New(t, ""), harness.Fixture(t, "minimal")
			tt.spoil(img)
			var options []string
			if tt.key != "" {
				options = []string{"--key-file", e.WriteFile("key", []byte(tt.key), 0o600)}
			}
			ref := e.Serve(img)
			refused(t, e, tt.code, []string{tt.says}, append(options, ref, e.MountDir())...)
			refused(t, e, tt.code, []string{tt.says}, append([]string{"verify"}, append(options, ref)...)...)
		})
	}
}

// TestEmptyKeyVariable: a variable that is set to nothing is an error, not the public key; so is one of the
// other kind of place ignored.
func TestEmptyKeyVariable(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, variable string
		folder         bool
	}{
		{"registry", "PF_OCI_REG_SIGN_KEY", false},
		{"folder", "PF_FILE_REG_SIGN_KEY", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			ref := e.Push(harness.Fixture(t, "minimal"))
			if tt.folder {
				ref = "file://" + e.CopyFixture("file-registry")
			}
			e.Set(tt.variable, "")
			refused(t, e, 1, []string{tt.variable, "empty"}, ref, e.MountDir())
			refused(t, e, 1, []string{tt.variable, "empty"}, "verify", ref)
		})
	}
}

// TestTamperedPlaces: a manifest changed after it was signed, or a changed blob of it, wherever the
// image lives.
func TestTamperedPlaces(t *testing.T) {
	t.Parallel()
	place := map[string]func(e *harness.Env, m *imgbuild.Image) (string, error){
		"layout": func(e *harness.Env, m *imgbuild.Image) (string, error) {
			return "oci-layout:" + e.Path("l") + ":v1", m.WriteLayout(e.MakeDir("l"), "v1")
		},
		"folder": func(e *harness.Env, m *imgbuild.Image) (string, error) {
			return "file://" + e.Path("f"), m.WriteFolder(e.MakeDir("f"))
		},
	}
	spoil := map[string]func(m *imgbuild.Image){
		"manifest":  func(m *imgbuild.Image) { m.Manifest = append(m.Manifest, ' ') },
		"signature": func(m *imgbuild.Image) { m.SetSignature(imgbuild.Sign(m.Manifest, "other")) },
		"tree": func(m *imgbuild.Image) {
			m.Layer(m.Digest("world.fs")).SetWire(imgbuild.Compress([]byte(`{"kind":"fs.tree.v1","entries":[]}`)))
		},
	}
	for at, write := range place {
		for what, edit := range spoil {
			t.Run(fmt.Sprintf("%s of a %s", what, at), func(t *testing.T) {
				harness.Once(t, func(t *testing.T, e *harness.Env) {
					img := harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.File("a", "0644", imgbuild.Text("a"))}})
					edit(img)
					ref, err := write(e, img)
					if err != nil {
						t.Fatal(err)
					}
					refused(t, e, 4, nil, ref, e.MountDir())
				})
			})
		}
	}
}
