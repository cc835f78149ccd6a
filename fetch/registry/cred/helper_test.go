package cred

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
	"oras.land/oras-go/v2/registry/remote/auth"
)

func TestHelper(t *testing.T) {
	t.Setenv("OCI_PASSWORD", "S3CRETenv")
	t.Setenv("AWS_PROFILE", "prod")
	registrytest.CredentialHelpers(t, map[string]string{
		"ok":      `read server; echo '{"ServerURL":"'$server'","Username":"u:'$server'","Secret":"'$1:$AWS_PROFILE:$OCI_PASSWORD'"}'`,
		"token":   `echo '{"Username":"<token>","Secret":"idt"}'`,
		"unknown": `echo "credentials not found in native keychain"; exit 1`,
		"empty":   `echo '{"Username":"","Secret":""}'`,
		"fails":   `echo S3CRETout; echo S3CRETerr >&2; exit 3`,
		"garbage": `printf 'S3CRETout\377\033[31m'`,
		"nouser":  `echo '{"Secret":"S3CRETout"}'`,
		"flood":   `while :; do echo S3CRETout; done`,
		"errors":  `i=0; while [ $i -lt 3000 ]; do echo S3CRETerr >&2; i=$((i+1)); done; echo '{"Username":"u","Secret":"s"}'`,
		"orphan":  `sleep 300 & echo '{"Username":"u","Secret":"'$!'"}'`,
		"killed":  `kill -9 $$`,
		"session": `[ $(ps -o sid= -p $$) = $$ ] && echo '{"Username":"own","Secret":"s"}'`,
	})
	tests := []struct {
		name, fails string
		want        auth.Credential
	}{
		{"ok", "", auth.Credential{Username: "u:h:5000", Password: "get:prod:"}},
		{"token", "", auth.Credential{RefreshToken: "idt"}},
		{"unknown", "", auth.EmptyCredential},
		{"empty", "", auth.EmptyCredential},
		{"session", "", auth.Credential{Username: "own", Password: "s"}},
		{"errors", "", auth.Credential{Username: "u", Password: "s"}},
		{"fails", "exit status 3", auth.EmptyCredential},
		{"garbage", "not JSON", auth.EmptyCredential},
		{"nouser", "no user", auth.EmptyCredential},
		{"flood", "64 KiB", auth.EmptyCredential},
		{"killed", "killed", auth.EmptyCredential},
		{"missing", "not in PATH", auth.EmptyCredential},
		{"../x", "not the name", auth.EmptyCredential},
	}
	for _, tt := range tests {
		got, err := askHelper(context.Background(), tt.name, "h:5000")
		var failed *helperError
		switch {
		case got != tt.want:
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		case tt.fails == "" && err != nil:
			t.Errorf("%s: got %v", tt.name, err)
		case tt.fails != "" && (!errors.As(err, &failed) ||
			!strings.Contains(err.Error(), tt.fails) || !strings.Contains(err.Error(), tt.name)):
			t.Errorf("%s: got %v, want a helper's error with %q", tt.name, err, tt.fails)
		case err != nil && strings.Contains(err.Error(), "S3CRET"):
			t.Errorf("%s: what the helper said is in %v", tt.name, err)
		}
	}
	got, err := askHelper(context.Background(), "orphan", "h")
	if err != nil || got.Username != "u" {
		t.Fatalf("a helper that leaves a process with its output: got %+v, %v", got, err)
	}
	wantGone(t, got.Password)
}

// wantGone waits for the end of a process.
func wantGone(t *testing.T, pid string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %s is still there: %s", pid, stat)
		}
	}
}

// TestHelperHangs: a helper that never answers ends with its caller, and so does what it started.
func TestHelperHangs(t *testing.T) {
	dir := registrytest.CredentialHelpers(t,
		map[string]string{"hangs": `sleep 300 & echo $! >"$0.pid"; trap '' TERM INT; wait; sleep 300`})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pids := filepath.Join(dir, "docker-credential-hangs.pid")
	go func() {
		for ctx.Err() == nil {
			if b, err := os.ReadFile(pids); err == nil && strings.HasSuffix(string(b), "\n") {
				cancel()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	if _, err := askHelper(ctx, "hangs", "h"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	pid, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	wantGone(t, strings.TrimSpace(string(pid)))
}

// TestHelperChoice: which helper is asked, for what, and what comes before it.
func TestHelperChoice(t *testing.T) {
	registrytest.CredentialHelpers(t, map[string]string{
		"a":    `read s; echo '{"Username":"a","Secret":"'$s'"}'`,
		"b":    `read s; echo '{"Username":"b","Secret":"'$s'"}'`,
		"none": `echo "credentials not found in native keychain"; exit 1`,
	})
	tests := []struct {
		name, host, file, user, password, problem string
	}{
		{"credHelpers", "h:5000", `{"credHelpers":{"h:5000":"a"},"credsStore":"b"}`, "a", "h:5000", ""},
		{"credsStore", "h:5000", `{"credHelpers":{"other":"a"},"credsStore":"b"}`, "b", "h:5000", ""},
		{"Docker Hub", ref.DockerAPI, `{"credsStore":"b"}`, "b", HubKey, ""},
		{"Docker Hub's helper", ref.DockerAPI, `{"credHelpers":{"docker.io":"a"}}`, "a", HubKey, ""},
		{"before the host's login", "h", `{"credsStore":"b","auths":{"h":{"auth":"` +
			registrytest.Base64("u:p") + `"}}}`, "b", "h", ""},
		{"behind the path's login", "h", `{"credsStore":"b","auths":{"h/org":{"auth":"` +
			registrytest.Base64("u:p") + `"}}}`, "u", "p", ""},
		{"knows nothing", "h", `{"credsStore":"none","auths":{"h":{"auth":"` +
			registrytest.Base64("u:p") + `"}}}`, "u", "p", ""},
		{"turned off", "h", `{"credHelpers":{"h":""},"credsStore":"b"}`, "", "", ""},
		{"missing", "h", `{"credHelpers":{"h":"gone"},"auths":{"h":{"auth":"` +
			registrytest.Base64("u:p") + `"}}}`, "", "", "docker-credential-gone (named in "},
		{"a path", "h", `{"credsStore":"../../bin/sh"}`, "", "", "not the name"},
	}
	for _, tt := range tests {
		path := registrytest.WriteFile(t, filepath.Join(t.TempDir(), "config.json"), tt.file, 0o600)
		got, err := Find(context.Background(), []string{path}, Names(tt.host, "org/x"))
		if err != nil || got.Cred.Username != tt.user || got.Cred.Password != tt.password {
			t.Errorf("%s: got %+v, %v, want %s:%s", tt.name, got, err, tt.user, tt.password)
		}
		if problems := strings.Join(got.Problems, ";"); !strings.Contains(problems, tt.problem) ||
			(tt.problem == "") != (problems == "") {
			t.Errorf("%s: got problems %q, want %q", tt.name, problems, tt.problem)
		}
	}
}
