package mounts

import (
	"strings"
	"testing"
)

func TestShows(t *testing.T) {
	for name, tt := range map[string]struct {
		table string
		want  bool
	}{
		"there":                {"36 25 0:44 / /mnt/a ro - fuse.pfmount img rw\n", true},
		"bound elsewhere":      {"36 25 0:44 /world/fs /mnt/b ro shared:5 - fuse.pfmount img rw\n", true},
		"another device":       {"36 25 0:45 / /mnt/a ro - fuse.pfmount img rw\n", false},
		"below an overlay":     {"40 25 0:50 / /merged rw - overlay overlay rw,lowerdir=/mnt/a\\040b/world/fs,upperdir=/u\n", true},
		"not below an overlay": {"40 25 0:50 / /merged rw - overlay overlay rw,lowerdir=/mnt/x\n", false},
		"named by no overlay":  {"40 25 0:50 / /y rw - ext4 /mnt/a\\040b rw\n", false},
		"no table":             {"rubbish\n36 25\n", false},
	} {
		table, err := Parse(strings.NewReader(tt.table))
		if got := shows(table, &Mount{Dev: "0:44", Point: "/mnt/a b"}); err != nil || got != tt.want {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, tt.want)
		}
	}
}
