package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// modesImage holds files of several modes, and a program with the set-user-id bit.
func modesImage(t *testing.T) *imgbuild.Image {
	t.Helper()
	id, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		t.Fatal(err)
	}
	return harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{
		imgbuild.File("private", "0600", imgbuild.Text("private\n")),
		imgbuild.File("public", "0644", imgbuild.Text("public\n")),
		imgbuild.Dir("closed", "0700"), imgbuild.File("closed/in", "0644", imgbuild.Text("in\n")),
		imgbuild.File("id", "04755", imgbuild.Bytes(id)), imgbuild.File("gid", "02755", imgbuild.Bytes(id)),
	}})
}

// visible lets other users reach the Env's mount points, so that what refuses them is the mount.
func visible(t *testing.T, e *harness.Env) {
	t.Helper()
	if err := os.Chmod(e.Path("m"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// denied fails the test unless other gets EACCES for each of the paths.
func denied(t *testing.T, other *harness.Env, paths ...string) {
	t.Helper()
	for _, p := range paths {
		for _, command := range []string{"cat", "stat -L", "ls"} {
			other.Sh(command+` "$1"`, p).Want(t,
				map[string]int{"ls": 2}[command]+map[string]int{"cat": 1,
					"stat -L": 1}[command], "permission denied")
		}
	}
}

// TestOthersDenied: without allow_other only the user that mounted sees anything, root
// included; folders of mode 0700 are the mounting user's own.
func TestOthersDenied(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		visible(t, e)
		m := e.Mount(e.Push(modesImage(t)))
		others := []*harness.Env{harness.New(t, "nobody")}
		if e.UID() != 0 {
			others = append(others, harness.New(t, ""))
		}
		for _, other := range others {
			denied(t, other, m.Dir, m.Path("manifest.json"), m.Path("world/fs/public"))
		}
		if got := string(m.Read("world/fs/closed/in")) +
			string(m.Read("world/fs/private")); got != "in\nprivate\n" {
			t.Errorf("the mounting user reads %q", got)
		}
		for _, n := range m.Tree("", false) {
			if n.Stat.Uid != uint32(e.UID()) {
				t.Errorf("%s belongs to %d, want the mounting user %d", n.Path, n.Stat.Uid, e.UID())
			}
		}
		line := harness.MountLines(t, m.Dir)[0]
		if !strings.Contains(line.Options, "nosuid") || !strings.Contains(line.Options, "nodev") ||
			strings.Contains(line.Super, "allow_other") {
			t.Errorf("mountinfo: %+v", line)
		}
	})
}

// inFuseConf gives the prefix of a mount namespace where /etc/fuse.conf has this text.
func inFuseConf(t *testing.T, text string) []string {
	t.Helper()
	conf := t.TempDir() + "/fuse.conf"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c",
		forgetMounts+` && mount --bind "$1" /etc/fuse.conf && echo ready && exec sleep infinity`, "sh", conf)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("mount namespace: %q, %v", line, err)
	}
	return []string{"nsenter", "-t", strconv.Itoa(cmd.Process.Pid), "-m"}
}

// TestAllowOther: with allow_other other users see what modes allow and no more, and set-id bits
// do nothing.
func TestAllowOther(t *testing.T) {
	t.Parallel()
	for _, option := range [][]string{{"--allow-other"}, {"-o", "allow_other"}} {
		t.Run(option[0], func(t *testing.T) {
			harness.Each(t, func(t *testing.T, e *harness.Env) {
				visible(t, e)
				prefix := inFuseConf(t, "user_allow_other\n")
				other := harness.New(t, "nobody")
				e.Prefix, other.Prefix = prefix, prefix
				ref, dir := e.Push(modesImage(t)), e.MountDir()
				e.Run(append(option, ref, dir)...).Want(t, 0)
				defer e.Run("umount", dir)
				fs := dir + "/world/fs"
				if r := other.Sh(`cat "$1/public" && ls "$1" >/dev/null`, fs).Want(t,
					0); r.Stdout != "public\n" {
					t.Errorf("another user reads %v", r)
				}
				denied(t, other, fs+"/closed/in")
				other.Sh(`cat "$1/private"`, fs).Want(t, 1, "permission denied")
				r := other.Sh(`stat -c %a "$1/id" "$1/gid"; "$1/id" -u; "$1/gid" -g`, fs).Want(t, 0)
				if want := "755\n755\n65534\n65534\n"; r.Stdout != want {
					t.Errorf("modes, ids: %q, want %q", r.Stdout, want)
				}
				e.Run("umount", dir).Want(t, 0)
			})
		})
	}
}

// TestAllowOtherRefused: an ordinary user may not give others access unless the administrator
// says so; the error says where.
func TestAllowOtherRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"empty": "", "comment": "#user_allow_other\n",
		"other": "mount_max = 9\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, harness.User)
			e.Prefix = inFuseConf(t, text)
			r := e.Run("-o", "allow_other", e.Push(harness.Fixture(t, "minimal")),
				e.MountDir()).Want(t, 6, "/etc/fuse.conf")
			if !strings.Contains(r.Stderr, "user_allow_other") {
				t.Errorf("the option to set is not named: %v", r)
			}
		})
	}
}

// TestOwner: --uid and --gid say who owns everything.
func TestOwner(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	visible(t, e)
	user := harness.New(t, harness.User)
	uid := strconv.Itoa(user.UID())
	m := e.Mount(e.Push(modesImage(t)), "-o", "allow_other,uid="+uid, "--gid", "0")
	for _, n := range m.Tree("", false) {
		if n.Stat.Uid != uint32(user.UID()) || n.Stat.Gid != 0 {
			t.Errorf("%s belongs to %d:%d", n.Path, n.Stat.Uid, n.Stat.Gid)
		}
	}
	if r := user.Sh(`cat "$1/private" "$1/closed/in"`, m.Path("world/fs")).Want(t,
		0); r.Stdout != "private\nin\n" {
		t.Errorf("the owner reads %v", r)
	}
	harness.New(t, "nobody").Sh(`cat "$1/private"`, m.Path("world/fs")).Want(t, 1, "permission denied")
}
