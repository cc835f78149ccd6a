package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// TestUncheckedSignature: no command calls a signature good that was not checked, by choice or for want
// of one.
func TestUncheckedSignature(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	e.Set("PF_STORE", e.CopyFixture("store"))
	keyed := e.Push(harness.Fixture(t, "keyed"))
	store := "store:16f7f7845ae284e3d0c73040710687dc78c5e1e950b6272d8454ed1f4599711e"
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"verify", "--insecure-skip-verify", keyed}, "signature not checked, "},
		{[]string{"verify", "--insecure-skip-verify", "--manifest", keyed}, "signature not checked, "},
		{[]string{"verify", store}, "signature not checked, "},
		{[]string{"inspect", "--insecure-skip-verify", keyed}, "not verified"},
		{[]string{"inspect", store}, "not verified"},
		{[]string{"doctor", "--insecure-skip-verify", keyed}, "not checked"},
		{[]string{"doctor", store}, "none to check"},
	} {
		r := e.Run(tt.args...).Want(t, 0)
		if strings.Contains(r.Stdout, "signature ok") || !strings.Contains(r.Stdout, tt.says) {
			t.Errorf("want %q: %v", tt.says, r)
		}
	}
	var got struct{ Key string }
	r := e.Run("verify", "--json", "--insecure-skip-verify", keyed).Want(t, 0)
	if err := json.Unmarshal([]byte(r.Stdout), &got); err != nil || got.Key != "none" {
		t.Errorf("%v, %v", r, err)
	}
	r = e.Run("verify", "--key-file", e.WriteFile("key", []byte("bike-team-key"), 0o600), keyed)
	if r.Want(t, 0); !strings.Contains(r.Stdout, "signature ok (given key), ") {
		t.Errorf("%v", r)
	}
}
