package sign

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestKeyFromFile(t *testing.T) {
	tests := []struct {
		content, want string
		wantErr       error
	}{
		{"team", "team", nil},
		{"team\n", "team", nil},
		{"team\r\n", "team", nil},
		{"team\n\n", "team\n", nil},
		{"team\r", "team\r", nil},
		{" team ", " team ", nil},
		{"\nteam", "\nteam", nil},
		{"\x00\xff\n", "\x00\xff", nil},
		{"", "", ErrKey},
		{"\n", "", ErrKey},
		{"\r\n", "", ErrKey},
	}
	for _, tt := range tests {
		got, err := KeyFromFile([]byte(tt.content))
		wantError(t, err, tt.wantErr, "")
		if string([]byte(got)) != tt.want {
			t.Errorf("%q: got %q, want %q", tt.content, []byte(got), tt.want)
		}
	}
}

func TestKeyFromEnv(t *testing.T) {
	env := map[string]string{"FULL": "team\n", "EMPTY": ""}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	tests := []struct {
		name, want string
		ok         bool
		wantErr    error
	}{
		{"FULL", "team\n", true, nil},
		{"EMPTY", "", false, ErrKey},
		{"UNSET", "", false, nil},
	}
	for _, tt := range tests {
		got, ok, err := KeyFromEnv(tt.name, lookup)
		wantError(t, err, tt.wantErr, tt.name)
		if string([]byte(got)) != tt.want || ok != tt.ok {
			t.Errorf("%s: got %q %v, want %q %v", tt.name, []byte(got), ok, tt.want, tt.ok)
		}
	}
}

// TestKeyIsNeverShown: no way of printing shows a key.
func TestKeyIsNeverShown(t *testing.T) {
	const secret = "very-secret"
	key := Key(secret)
	policy := Policy{Keys: []Key{key}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%t"} {
		fmt.Fprintf(&out, verb+"\n", key)
		fmt.Fprintf(&out, verb+"\n", policy)
		fmt.Fprintf(&out, verb+"\n", &policy)
	}
	out.WriteString(key.String() + key.GoString())
	level := &slog.HandlerOptions{Level: slog.LevelDebug}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, level), slog.NewJSONHandler(&out, level)} {
		slog.New(h).Info("m", "key", key, "policy", policy, "pointer", &policy)
	}
	for _, v := range []any{key, policy, map[string]any{"k": key}} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
	}
	for _, bad := range []string{secret, "dmVyeS1zZWNyZXQ", fmt.Sprintf("%x", secret),
		fmt.Sprintf("%d", []byte(secret)), fmt.Sprintf("%#v", []byte(secret))} {
		if strings.Contains(strings.ToLower(out.String()), strings.ToLower(bad)) {
			t.Errorf("%q is in the output:\n%s", bad, out.String())
		}
	}
	if !strings.Contains(out.String(), hidden) {
		t.Errorf("%q is not in the output", hidden)
	}
}
