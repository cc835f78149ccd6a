package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestSafe: what foreign text says reaches neither a terminal nor a bug report as a control or as a
// change of direction.
func TestSafe(t *testing.T) {
	t.Parallel()
	for _, foreign := range []string{"\x1b[2J", "a\nb", "\u009b2J", "\x9b2J", "\u202eexe.fdp"} {
		report, terminal := &Diagnosis{}, &Diagnosis{cfg: Config{Terminal: true}}
		for _, got := range []string{report.safe(foreign), terminal.safe(foreign)} {
			if strings.ContainsAny(got, "\n\x1b\u009b\u202e") || !utf8.ValidString(got) {
				t.Errorf("%q is shown as %q", foreign, got)
			}
		}
	}
	if got, want := (&Diagnosis{}).safe(`no "ö"`), `no "\u00f6"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestAdvice: what can be done about an error of a registry, however it is wrapped.
func TestAdvice(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"getent hosts": &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host"}},
		"firewall":     &net.OpError{Op: "dial", Err: errors.New("connection refused")},
		"--ca-file":    &tls.CertificateVerificationError{Err: errors.New("unknown authority")},
		"-v tells":     &net.OpError{Op: "read", Err: errors.New("connection reset")},
	} {
		if got := advice(fmt.Errorf("registry: %w", err)); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

// TestExamine: each check of the machine is a line, a check that fails is one with advice, and its
// error is that of the examination.
func TestExamine(t *testing.T) {
	t.Parallel()
	bad := errors.New("no such size")
	var out strings.Builder
	cfg := Config{
		Version: "1.2.3", Out: &out, HostsDir: t.TempDir(),
		Cache: func() (string, int64, error) { return "", 0, bad },
	}
	d := Examine(t.Context(), cfg)
	if err := d.Err(); !errors.Is(err, bad) {
		t.Errorf("got %v, want %v", err, bad)
	}
	if lines := strings.Count(out.String(), "\n"); lines != len(d.Checks) || lines != 10 {
		t.Errorf("%d lines of %d checks:\n%s", lines, len(d.Checks), out.String())
	}
	for _, text := range []string{"1.2.3, go", "no such size -> choose another folder"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("no %q in\n%s", text, out.String())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d := Examine(ctx, cfg); len(d.Checks) != 0 {
		t.Errorf("interrupted, and found %+v", d.Checks)
	}
}
