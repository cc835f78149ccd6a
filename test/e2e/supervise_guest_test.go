//go:build guest

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
)

// guest is a Debian that systemd booted in a container (systemd-nspawn), with pfmount installed as
// make install does it, the fixtures below /images, and everything that is changed there forgotten
// at the end.
type guest struct {
	t      *testing.T
	env    *harness.Env
	leader string // its init's process
}

// bootGuest boots a guest; it is powered off with the test.
func bootGuest(t *testing.T) *guest {
	t.Helper()
	e := harness.New(t, "")
	tree, err := exec.Command(filepath.Join(repoDir(t), "test/guest.sh")).Output()
	if err != nil {
		t.Fatalf("test/guest.sh: %v\n%s", err, err.(*exec.ExitError).Stderr)
	}
	stage := install(t, e)
	console, err := os.Create(e.Path("console"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	cmd := exec.Command("systemd-nspawn", "--quiet", "--directory="+strings.TrimSpace(string(tree)),
		"--volatile=overlay",
		"--boot", "--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
		"--machine="+filepath.Base(e.Dir), "--bind=/dev/fuse", "--bind=/dev/autofs",
		"--capability=all", "--bind-ro="+stage+":/stage",
		"--bind-ro="+harness.FixtureDir(t, "layout")+":/images")
	cmd.Stdout, cmd.Stderr = console, console
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	g := &guest{t: t, env: e}
	t.Cleanup(func() { g.powerOff(cmd, ended) })
	children := fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid)
	g.eventually("boot", func() bool {
		data, _ := os.ReadFile(children)
		g.leader = strings.TrimSpace(string(data))
		return g.leader != "" && !strings.Contains(g.leader, " ") &&
			g.try("systemctl is-active multi-user.target").Code == 0
	})
	g.run("cp -a /stage/usr/local/. /usr/local/ && cp -a /stage/sbin/. /sbin/ && mkdir -p /mnt/sess /etc/pfmount && systemctl daemon-reload")
	return g
}

func (g *guest) powerOff(cmd *exec.Cmd, ended <-chan error) {
	if g.t.Failed() {
		text, _ := os.ReadFile(g.env.Path("console"))
		g.t.Logf("console:\n%s", text)
		if g.leader != "" {
			g.t.Logf("journal:\n%s", g.try("journalctl --no-pager -n 150").Stdout)
		}
	}
	if g.leader != "" {
		g.try("systemctl poweroff")
	}
	select {
	case <-ended:
		return
	case <-time.After(time.Minute):
	}
	g.t.Error("the guest does not power off")
	cmd.Process.Kill()
	<-ended
}

// try runs a shell script in the guest.
func (g *guest) try(script string) harness.Result {
	g.t.Helper()
	return g.env.Command("nsenter", "-at", g.leader, "env", "-i",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8", "sh", "-euc", script).Wait(harness.Limit)
}

// run is try for what must succeed; it gives the output.
func (g *guest) run(script string) string {
	g.t.Helper()
	return strings.TrimSpace(g.try(script).Want(g.t, 0).Stdout)
}

// write writes a file in the guest.
func (g *guest) write(path, text string) {
	g.t.Helper()
	g.run(fmt.Sprintf("mkdir -p $(dirname '%s'); cat >'%s' <<'END'\n%s\nEND", path, path, text))
}

// property is a property of a unit.
func (g *guest) property(unit, name string) string {
	g.t.Helper()
	return g.run(fmt.Sprintf("systemctl show --value -p %s '%s'", name, unit))
}

func (g *guest) eventually(what string, ok func() bool) {
	g.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			g.t.Fatalf("%s: not within two minutes", what)
		}
		time.Sleep(100 * time.Millisecond) // each look starts processes
	}
}

// mounted tells the options of each mount on dir, "" when there is none.
func (g *guest) mounted(dir string) string {
	g.t.Helper()
	return g.run(fmt.Sprintf(`awk -v d='%s' '$5 == d {print $6}' /proc/self/mountinfo`, dir))
}

// nothingLeft fails the test if a process or a mount of pfmount is left in the guest.
func (g *guest) nothingLeft() {
	g.t.Helper()
	g.eventually("end of all processes", func() bool {
		return g.run(`for p in /proc/[0-9]*; do readlink $p/exe || true; done | grep -c bin/pfmount || true`) == "0"
	})
	if left := g.run("grep fuse.pfmount /proc/self/mountinfo || true; find /run /tmp -name '*.sock' -path '*pfmount*'"); left != "" {
		g.t.Errorf("left: %s", left)
	}
}

// journal waits until the journal has a unit say something: it is written beside what it tells of.
func (g *guest) journal(unit, words string) {
	g.t.Helper()
	g.eventually(fmt.Sprintf("%q in the journal of %s", words, unit), func() bool {
		return strings.Contains(g.run("journalctl --no-pager -u "+unit), words)
	})
}
