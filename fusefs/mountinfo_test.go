package fusefs

import (
	"strings"
	"testing"
)

func TestFindMount(t *testing.T) {
	const ours = "36 25 0:44 / /mnt/a ro,nosuid,nodev - fuse.pfmount img rw,user_id=0\n"
	for _, test := range []struct {
		name, table, point string
		want               place
	}{
		{"there", "25 1 8:1 / / rw - ext4 /dev/sda rw\n" + ours, "/mnt/a", top},
		{"empty table", "", "/mnt/a", absent},
		{"elsewhere", ours, "/mnt/b", absent},
		{"another device", "36 25 0:45 / /mnt/a ro - fuse.pfmount img rw\n", "/mnt/a", absent},
		{"covered", ours + "37 36 0:50 / /mnt/a rw - tmpfs tmpfs rw\n", "/mnt/a", covered},
		{"covered, listed first", "37 36 0:50 / /mnt/a rw - tmpfs tmpfs rw\n" + ours, "/mnt/a", covered},
		{"on top of another", "35 25 0:50 / /mnt/a rw - tmpfs tmpfs rw\n" + strings.Replace(ours, "36 25", "36 35", 1), "/mnt/a", top},
		{"a mount below it", ours + "37 36 0:50 / /mnt/a/b rw - tmpfs tmpfs rw\n", "/mnt/a", top},
		{"optional fields", "36 25 0:44 / /mnt/a ro shared:5 master:1 - fuse.pfmount img rw\n", "/mnt/a", top},
		{"escapes", `36 25 0:44 / /mnt/a\040b\134\011\012 ro - fuse.pfmount img rw` + "\n", "/mnt/a b\\\t\n", top},
		{"no table", "rubbish\n36 25\n", "/mnt/a", absent},
	} {
		if got, err := findMount(strings.NewReader(test.table), test.point, "0:44"); err != nil || got != test.want {
			t.Errorf("%s: %d, %v, want %d", test.name, got, err, test.want)
		}
	}
	if _, err := findMount(strings.NewReader(strings.Repeat("x", 2<<20)), "/", "0:44"); err == nil {
		t.Error("an endless line is no error")
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "/a": "/a", `a\040b`: "a b", `\134`: `\`, `a\`: `a\`, `a\04`: `a\04`, `a\999`: `a\999`, `\040\040`: "  ", `\134040`: `\040`,
	} {
		if got := Unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
