package registrytest

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Base64 is the auth field of a login file.
func Base64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// WriteFile writes a file and the folders above it.
func WriteFile(t *testing.T, path, content string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// LoginFile makes a login file of keys and USER:PASSWORD.
func LoginFile(pairs ...string) string {
	var list []string
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, `"`+pairs[i]+`":{"auth":"`+Base64(pairs[i+1])+`"}`)
	}
	return `{"auths":{` + strings.Join(list, ",") + `}}`
}

// CredentialHelpers makes a folder the only one in PATH, next to the system's, and writes helpers
// there.
func CredentialHelpers(t *testing.T, scripts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		WriteFile(t, filepath.Join(dir, "docker-credential-"+name), "#!/bin/sh\n"+script, 0o755)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	return dir
}
