package fusefs

import "testing"

// TestProtocol: the kernel tells its version, every time anew.
func TestProtocol(t *testing.T) {
	for range 3 {
		major, minor, err := Protocol()
		if err != nil || major != 7 || minor < 12 {
			t.Errorf("got %d.%d, %v, want 7.12 or later", major, minor, err)
		}
	}
}
