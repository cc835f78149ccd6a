//go:build guest

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// TestGuestContainer: a container of another distribution's tree, without an init and without
// fusermount3's help.
func TestGuestContainer(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	tree, err := exec.Command(filepath.Join(repoDir(t), "test/guest.sh")).Output()
	if err != nil {
		t.Fatalf("test/guest.sh: %v\n%s", err, err.(*exec.ExitError).Stderr)
	}
	ref := e.Push(harness.Fixture(t, "basic"))
	argv := []string{"systemd-nspawn", "--quiet", "--pipe",
		"--directory=" + strings.TrimSpace(string(tree)), "--volatile=overlay", "--register=no",
		"--keep-unit",
		"--resolv-conf=off", "--timezone=off", "--machine=" + filepath.Base(e.Dir), "--bind-ro=" +
			e.Bin + ":/usr/bin/pfmount"}
	r := e.Command(append(append([]string{}, append(argv, "--bind=/dev/fuse")...), "sh", "-c",
		"rm /usr/bin/fusermount3; "+lived, "sh", "pfmount", ref, "/mnt")...).Wait(harness.Limit).Want(t, 0)
	if r.Stdout != readable+"\n" {
		t.Errorf("mounted %q", r.Stdout)
	}
	e.Command(append(argv, "pfmount", ref, "/mnt")...).Wait(harness.Limit).Want(t, 6, "/dev/fuse")
}

// TestGuestSystemd boots a system and has it run mounts in each way that is documented.
func TestGuestSystemd(t *testing.T) {
	t.Parallel()
	g := bootGuest(t)
	for _, part := range []struct {
		name string
		test func(*testing.T, *guest)
	}{
		{"service", testService}, {"service that fails", testFailingService}, {"killed", testKilledService},
		{"watchdog", testWatchdog}, {"unmounted by hand", testUnmountedService},
		{"background", testForkingService},
		{"user's service", testUserService}, {"mount unit", testMountUnit}, {"fstab", testFstab},
		{"automount", testAutomount}, {"automount that fails", testFailingAutomount},
		{"user's fstab", testUsersFstab},
	} {
		t.Run(part.name, func(t *testing.T) {
			sub := *g
			sub.t = t
			defer sub.try(`systemctl stop pfmount@sess own mnt-sess.automount mnt-sess.mount || true
rm -rf /etc/systemd/system/pfmount@*.d /etc/systemd/system/own.service /etc/systemd/system/mnt-sess.*mount /etc/fstab
systemctl daemon-reload; systemctl reset-failed`)
			part.test(t, &sub)
			sub.nothingLeft()
		})
	}
}

// start starts pfmount@sess on the image of a fixture and gives its process.
func (g *guest) start(tag string) (pid string) {
	g.t.Helper()
	g.write("/etc/pfmount/sess.conf", "IMAGE=oci-layout:/images:"+tag+"\nMOUNTPOINT=/mnt/sess\nOPTIONS=")
	g.run("systemctl start pfmount@sess && test -s /mnt/sess/manifest.json")
	return g.property("pfmount@sess", "MainPID")
}

func testService(t *testing.T, g *guest) {
	pid := g.start("basic")
	if flags := g.mounted("/mnt/sess"); flags != readable {
		t.Errorf("mounted %q", flags)
	}
	status := g.run("systemctl status pfmount@sess")
	if !strings.Contains(status, `Status: "oci-layout:/images:basic: fetched `) ||
		!strings.Contains(status, "active (running)") {
		t.Errorf("status: %s", status)
	}
	before := g.property("pfmount@sess", "StatusText")
	g.run("find /mnt/sess/world/fs -type f -exec cat {} + >/dev/null")
	g.eventually("a new status line",
		func() bool { return g.property("pfmount@sess", "StatusText") != before })
	if left := g.run("xargs -0n1 </proc/" + pid + "/environ | grep -c NOTIFY_SOCKET"); left != "1" {
		t.Errorf("the service has no manager: %s", left)
	}
	if again := g.run("pfmount status /mnt/sess"); !strings.Contains(again, "process  "+pid) {
		t.Errorf("status: %s", again)
	}
	g.run("systemctl restart pfmount@sess && test -s /mnt/sess/manifest.json && systemctl stop pfmount@sess")
	if result := g.property("pfmount@sess", "Result"); result != "success" {
		t.Errorf("result %s", result)
	}
	if flags := g.mounted("/mnt/sess"); flags != "" {
		t.Errorf("still mounted: %q", flags)
	}
	// Somebody works in it: the stop detaches it, within its bound.
	g.start("basic")
	g.run("cd /mnt/sess/world && (sleep 1000 & echo $! >/run/holder) && systemctl stop pfmount@sess; kill $(cat /run/holder)")
	if result := g.property("pfmount@sess", "Result"); result != "success" {
		t.Errorf("a busy mount: result %s", result)
	}
}

// testFailingService: what may get better is tried again until it does, what cannot is not; the
// journal has the reason.
func testFailingService(t *testing.T, g *guest) {
	const wrong = "IMAGE=oci-layout:/tmp/late:basic\nMOUNTPOINT=/mnt/sess\nOPTIONS="
	g.write("/etc/pfmount/sess.conf", wrong+"--bogus")
	g.try("systemctl start pfmount@sess").Want(t, 1)
	if code, state := g.property("pfmount@sess", "ExecMainStatus"), g.property("pfmount@sess",
		"ActiveState"); code != "1" || state != "failed" {
		t.Errorf("exit code %s, %s", code, state)
	}
	g.write("/etc/pfmount/sess.conf", wrong)
	g.try("systemctl start pfmount@sess").Want(t, 1)
	if code, state := g.property("pfmount@sess", "ExecMainStatus"), g.property("pfmount@sess",
		"ActiveState"); code != "5" || state != "activating" {
		t.Errorf("exit code %s, %s", code, state)
	}
	if flags := g.mounted("/mnt/sess"); flags != "" {
		t.Errorf("mounted: %q", flags)
	}
	for _, reason := range []string{"bogus", "/tmp/late"} {
		g.journal("pfmount@sess", reason)
	}
	g.run("cp -r /images /tmp/late")
	g.restarted("0")
	g.run("systemctl stop pfmount@sess")
}

// restarted waits until the service serves the mount again by another process.
func (g *guest) restarted(pid string) {
	g.t.Helper()
	g.eventually("a new process", func() bool {
		now := g.property("pfmount@sess", "MainPID")
		return now != "0" && now != pid && g.property("pfmount@sess", "ActiveState") == "active"
	})
	g.run("test -s /mnt/sess/manifest.json")
	if flags := g.mounted("/mnt/sess"); flags != readable {
		g.t.Errorf("mounted %q", flags)
	}
}

func testKilledService(t *testing.T, g *guest) {
	pid := g.start("basic")
	g.run("kill -9 " + pid)
	g.restarted(pid)
	// Again, with a reader that keeps the stale mount in use.
	pid = g.property("pfmount@sess", "MainPID")
	g.run("cd /mnt/sess/world && (sleep 1000 & echo $! >/run/holder); kill -9 " + pid)
	g.restarted(pid)
	g.run("systemctl stop pfmount@sess; kill $(cat /run/holder)")
}

func testWatchdog(t *testing.T, g *guest) {
	g.write("/etc/systemd/system/pfmount@.service.d/soon.conf", "[Service]\nWatchdogSec=2\nTimeoutAbortSec=5")
	g.run("systemctl daemon-reload")
	pid := g.start("basic")
	g.run("sleep 5")
	if now := g.property("pfmount@sess", "MainPID"); now != pid {
		t.Fatalf("process %s was restarted as %s", pid, now)
	}
	g.run("kill -STOP " + pid)
	g.restarted(pid)
	g.journal("pfmount@sess", "Watchdog timeout")
	g.run("systemctl stop pfmount@sess")
}

func testUnmountedService(t *testing.T, g *guest) {
	g.start("basic")
	g.run("umount /mnt/sess")
	g.eventually("end of the service",
		func() bool { return g.property("pfmount@sess", "ActiveState") == "inactive" })
	if result := g.property("pfmount@sess", "Result"); result != "success" {
		t.Errorf("result %s", result)
	}
}

// testForkingService: without -f, in a unit of one's own, the background process becomes the service.
func testForkingService(t *testing.T, g *guest) {
	g.write("/etc/systemd/system/own.service", `[Service]
Type=notify
NotifyAccess=all
ExecStart=pfmount oci-layout:/images:basic /mnt/sess
WatchdogSec=2`)
	g.run("systemctl daemon-reload && systemctl start own && test -s /mnt/sess/manifest.json")
	pid := g.property("own", "MainPID")
	if got := g.run("pfmount status /mnt/sess"); !strings.Contains(got, "process  "+pid) {
		t.Errorf("main process %s: %s", pid, got)
	}
	g.run("sleep 5")
	if now := g.property("own", "MainPID"); now != pid {
		t.Errorf("process %s became %q", pid, now)
	}
	g.run("systemctl stop own && systemctl show -p Result own | grep success")
}

func testUserService(t *testing.T, g *guest) {
	g.run("useradd -m someone && systemctl start user@$(id -u someone)")
	const as = `as() { runuser -u someone -- env HOME=/home/someone XDG_RUNTIME_DIR=/run/user/$(id -u someone) "$@"; }; `
	g.run(as + `as mkdir -p /home/someone/.config/pfmount /home/someone/sess
printf 'IMAGE=oci-layout:/images:basic\nMOUNTPOINT=/home/someone/sess\nOPTIONS=\n' >/home/someone/.config/pfmount/mine.conf
as systemctl --user start pfmount@mine
as test -s /home/someone/sess/manifest.json
as systemctl --user status pfmount@mine | grep Status:
as test -d /home/someone/.cache/pfmount`)
	if flags := g.mounted("/home/someone/sess"); flags != readable {
		t.Errorf("mounted %q", flags)
	}
	g.run(as + `as systemctl --user stop pfmount@mine && systemctl stop user@$(id -u someone)`)
}

// testMountUnit: the installed example, on another image.
func testMountUnit(t *testing.T, g *guest) {
	g.run(`sed 's,^What=.*,What=oci-layout:/images:basic,; s/^Options=.*/Options=allow_other,_netdev/' \
	/usr/local/share/doc/pfmount/examples/mnt-sess.mount >/etc/systemd/system/mnt-sess.mount
systemctl daemon-reload && systemctl start mnt-sess.mount && test -s /mnt/sess/manifest.json`)
	if flags := g.mounted("/mnt/sess"); flags != readable {
		t.Errorf("mounted %q", flags)
	}
	g.run("systemctl start mnt-sess.mount") // nothing to do
	g.run("systemctl stop mnt-sess.mount")
	g.nothingLeft()
	g.run("systemctl start mnt-sess.mount")
	g.run(`kill -9 $(pfmount status --json /mnt/sess | sed -n 's/.*"pid": \([0-9]*\).*/\1/p') && systemctl restart mnt-sess.mount && test -s /mnt/sess/manifest.json`)
	if flags := g.mounted("/mnt/sess"); flags != readable {
		t.Errorf("mounted %q after its process was killed", flags)
	}
	g.run("umount /mnt/sess")
	g.eventually("end of the unit",
		func() bool { return g.property("mnt-sess.mount", "ActiveState") == "inactive" })
	g.run(`sed -i 's/^Options=/Options=sugar,/' /etc/systemd/system/mnt-sess.mount && systemctl daemon-reload`)
	g.try("systemctl start mnt-sess.mount").Want(t, 1)
	g.journal("mnt-sess.mount", "sugar")
}

// testFstab: lines of fstab, by systemd's generator and by mount -a; what root has no HOME for is
// where it is said to be.
func testFstab(t *testing.T, g *guest) {
	for _, fstype := range []string{"fuse.pfmount", "pfmount"} {
		g.write("/etc/fstab", fmt.Sprintf("oci-layout:/images:basic /mnt/sess %s _netdev,nofail,noauto,user,allow_other 0 0", fstype))
		g.run("systemctl daemon-reload && systemctl start mnt-sess.mount && test -s /mnt/sess/manifest.json && systemctl stop mnt-sess.mount")
		g.run("mount /mnt/sess && test -s /mnt/sess/manifest.json && umount /mnt/sess")
		g.nothingLeft()
	}
	g.run("ls /var/cache/pfmount/CACHEDIR.TAG /var/log/pfmount/*.log")
}

// docLines gives the lines of fstab in the documents that have a word, on the image of a fixture.
func docLines(t *testing.T, word string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repoDir(t), "docs/operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	const image = "ghcr.io/org/repo:tag  /mnt/"
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, image) && strings.Contains(line, word) {
			lines = append(lines, strings.Replace(strings.TrimSpace(line), "ghcr.io/org/repo:tag",
				"oci-layout:/images:basic", 1))
		}
	}
	if len(lines) == 0 {
		t.Fatalf("docs/operating.md has no line of fstab with %s", word)
	}
	return lines
}

// access reads a blob below dir as a user; a reader that waits for an automount is ended in time.
func (g *guest) access(user, dir string) {
	g.t.Helper()
	g.run(fmt.Sprintf("runuser -u %s -- timeout -k 1 60 sha256sum '%s/model/base' | grep -q %s",
		user, dir, strings.TrimPrefix(harness.Fixture(g.t, "basic").Digest("model/base"), "sha256:")))
}

// testAutomount: the documented line, one that is for all users, and the installed examples mount at
// the first access, again after an unmount, and nothing before.
func testAutomount(t *testing.T, g *guest) {
	const units = "mnt-sess.automount mnt-sess.mount"
	examples := fmt.Sprintf(`cd /usr/local/share/doc/pfmount/examples && cp %s /etc/systemd/system
sed -i 's,^What=.*,What=oci-layout:/images:basic,; s/^Options=.*/Options=allow_other,_netdev/' \
	/etc/systemd/system/mnt-sess.mount`, units)
	const forAll = "oci-layout:/images:basic /mnt/sess fuse.pfmount " +
		"noauto,x-systemd.automount,_netdev,nofail,allow_other 0 0"
	for _, line := range append(docLines(t, "x-systemd.automount"), forAll, "") {
		g.write("/etc/fstab", line)
		start := "systemctl restart remote-fs.target"
		if line == "" {
			g.run(examples)
			start = "systemctl start mnt-sess.automount"
		}
		g.run("systemctl daemon-reload && " + start)
		if state := g.property("mnt-sess.automount", "SubState"); state != "waiting" {
			t.Errorf("%q: the automount is %s", line, state)
		}
		for range 2 {
			g.access("root", "/mnt/sess")
			if line == "" || strings.Contains(line, "allow_other") {
				g.access("nobody", "/mnt/sess")
			}
			g.run("systemctl stop mnt-sess.mount")
			g.nothingLeft()
		}
		g.run(fmt.Sprintf("systemctl stop %s; rm -f /etc/fstab; cd /etc/systemd/system && "+
			"rm -f %[1]s; systemctl daemon-reload", units))
	}
}

// testFailingAutomount: an image that cannot be mounted is an error of the access, and a new
// automount tries again.
func testFailingAutomount(t *testing.T, g *guest) {
	g.write("/etc/fstab", "oci-layout:/tmp/later:basic /mnt/sess fuse.pfmount "+
		"noauto,x-systemd.automount,_netdev 0 0")
	g.run("systemctl daemon-reload && systemctl start mnt-sess.automount")
	g.run("! timeout -k 1 60 ls /mnt/sess && [ $? != 124 ]")
	g.journal("mnt-sess.mount", "/tmp/later")
	g.run("cp -r /images /tmp/later && systemctl reset-failed && systemctl restart mnt-sess.automount")
	g.access("root", "/mnt/sess")
	g.run("systemctl stop mnt-sess.automount mnt-sess.mount")
}

// testUsersFstab: a user mounts what fstab lets users mount; mount(8) removes HOME, and cache and log
// are in it.
func testUsersFstab(t *testing.T, g *guest) {
	g.write("/etc/fstab", strings.Join(docLines(t, ",user"), "\n"))
	g.run(`id mounter >/dev/null 2>&1 || useradd -m mounter; mkdir -p /mnt/mine && chown mounter /mnt/mine`)
	g.run("runuser -u mounter -- mount /mnt/mine")
	g.access("mounter", "/mnt/mine")
	g.run("ls /home/mounter/.cache/pfmount/CACHEDIR.TAG /home/mounter/.local/state/pfmount/*.log")
	g.run("runuser -u mounter -- umount /mnt/mine; rm /etc/fstab; systemctl daemon-reload")
	g.run("rmdir /mnt/mine")
}
