package e2e

import (
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// TestPullSurvivesPowerCut cuts the power right after a pull: what the destination names is whole.
func TestPullSurvivesPowerCut(t *testing.T) {
	t.Parallel()
	for _, dest := range []string{"file://", "oci-layout:", "store:"} {
		t.Run(strings.Trim(dest, ":/"), func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			disk := e.Ext4("disk", 64<<20, "rw")
			e.Set("PF_STORE", disk.Dir+"/s")
			place := dest + disk.Dir + "/s"
			if dest == "store:" {
				place = dest
			}
			there := strings.TrimSpace(e.Run("pull", "-q", e.Push(harness.Fixture(t, "many")),
				place).Want(t, 0).Stdout)
			disk.Cut()
			disk.Restore("rw")
			e.Run("exists", there).Want(t, 0)
			e.Run("verify", there).Want(t, 0)
		})
	}
}
