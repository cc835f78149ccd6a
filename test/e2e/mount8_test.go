package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// installed is an Env whose binary is installed together with the names under which mount(8) finds
// it. Its commands run in a mount namespace of their own, in which those names stand in /sbin,
// after more has been prepared by a script.
func installed(t *testing.T, user, script string) *harness.Env {
	t.Helper()
	e := harness.New(t, user)
	prefix, sbin := e.Path("local"), e.Path("sbin")
	install(t, e, "DESTDIR=", "PREFIX="+prefix, "SBINDIR="+sbin)
	e.Bin = prefix + "/bin/pfmount"
	// A shell that has no PATH, such as mount.fuse3's, looks in /usr/local/bin.
	e.Prefix = private(`mount --bind ` + prefix +
		`/bin /usr/local/bin && s=$(readlink -f /sbin) && mount -t overlay overlay -o lowerdir=` +
		sbin + `:$s $s && ` + script)
	return e
}

// wayOut is a script's end: unmounts $dir, and waits until nothing of it is left.
const wayOut = `
umount "$dir"
for i in $(seq 300); do
  pgrep -f "^[^ ]*(pfmount|mount.fuse.pfmount|mount.pfmount) .*$dir" >/dev/null || exit 0
  sleep 0.1
done
echo "still there: $(pgrep -af "$dir")" >&2; exit 9`

// flags prints the flags of the mounts on $dir, one line each, as mountinfo has them.
const flags = `awk -v d="$dir" '$5 == d {print $6}' /proc/self/mountinfo`

// TestMount8: as root, by mount(8) and each of its ways to us, under either type, with the options
// that it hands on.
func TestMount8(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ command, flags string }{
		"fuse.pfmount": {`mount -t fuse.pfmount "$ref" "$dir"`, "ro,nosuid,nodev,relatime"},
		"pfmount":      {`mount -t pfmount "$ref" "$dir"`, "ro,nosuid,nodev,relatime"},
		"everything off": {`mount -t fuse.pfmount -o rw,dev,suid,exec,async,atime "$ref" "$dir"`,
			"ro,nosuid,nodev,relatime"},
		"generic":        {`mount -t pfmount -n -v -s -o ro,_netdev,nofail,noauto,users,owner,exec,comment=x,x-systemd.automount,x-a.b=c,nodev,nosuid "$ref" "$dir"`, "ro,nosuid,nodev,relatime"},
		"user is noexec": {`mount -t fuse.pfmount -o user "$ref" "$dir"`, "ro,nosuid,nodev,noexec,relatime"},
		"user, exec":     {`mount -t fuse.pfmount -o user,exec "$ref" "$dir"`, "ro,nosuid,nodev,relatime"},
		"own options":    {`mount -t fuse.pfmount -o cache_size=1GiB,allow_other,stall_timeout=10s "$ref" "$dir"`, "ro,nosuid,nodev,relatime"},
		"no environment": {`env -i "HOME=$HOME" /bin/mount -t fuse.pfmount "$ref" "$dir"`,
			"ro,nosuid,nodev,relatime"},
		"the case's call": {`/sbin/mount.fuse.pfmount "$ref" "$dir" -o ro,_netdev,nofail,noauto,user,x-systemd.automount,nodev,nosuid -n -v`, "ro,nosuid,nodev,relatime"},
		"a type": {`/sbin/mount.pfmount "$ref" "$dir" -sn -t fuse.pfmount -o rw`,
			"ro,nosuid,nodev,relatime"},
		"mount.fuse3": {`mount -t fuse pfmount#"$ref" "$dir" -o _netdev,nofail,dev,suid`,
			"ro,nosuid,nodev,relatime"},
		"mount.fuse3 -t": {`/sbin/mount.fuse3 "$ref" "$dir" -t fuse.pfmount -o rw,noexec`,
			"ro,nosuid,nodev,noexec,relatime"},
		"fstab":      {`echo "$ref $dir fuse.pfmount noauto,x-systemd.automount,_netdev,nofail,user,exec 0 0" >"$HOME/fstab"; mount -T "$HOME/fstab" "$dir"`, "ro,nosuid,nodev,relatime"},
		"fstab, all": {`echo "$ref $dir pfmount _netdev,nofail 0 0" >"$HOME/fstab"; mount -a -T "$HOME/fstab"; mount -a -T "$HOME/fstab"; mount -a -O _netdev -T "$HOME/fstab"`, "ro,nosuid,nodev,relatime"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := installed(t, "", "true")
			e.Set("PATH", e.Path("local/bin")+":/usr/sbin:/usr/bin:/sbin:/bin")
			ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
			r := e.Sh("ref=$1 dir=$2\n"+tt.command+"\ntest -s \"$dir/manifest.json\"\n"+flags+wayOut, ref, dir).Want(t, 0)
			lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
			if got := lines[len(lines)-1]; got != tt.flags || strings.Count(r.Stdout, "nosuid") != 1 {
				t.Errorf("mounted %q, want %q: %v", r.Stdout, tt.flags, r)
			}
		})
	}
}

// TestMount8User: a user mounts what fstab lets users mount, and unmounts it.
func TestMount8User(t *testing.T) {
	t.Parallel()
	e := installed(t, harness.User,
		`mount --bind "$HOME/fstab" /etc/fstab; mount --bind "$HOME" ~`+harness.User)
	e.Unset("XDG_CACHE_HOME") // mount(8) takes HOME away
	e.Unset("XDG_STATE_HOME")
	ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
	e.WriteFile("home/fstab",
		[]byte(ref+" "+dir+" fuse.pfmount noauto,x-systemd.automount,_netdev,nofail,user 0 0\n"), 0o644)
	r := e.Sh(`dir=$1; mount "$dir"; test -s "$dir/manifest.json"
test -d "$HOME/.cache/pfmount/blobs"; `+flags+wayOut, dir).Want(t, 0)
	if got := strings.TrimSpace(r.Stdout); got != "ro,nosuid,nodev,noexec,relatime" {
		t.Errorf("mounted %q", got)
	}
}

// TestMount8Refused: the codes of mount(8), a reason on stderr, and no mount; of -f, all of that
// but the reason.
func TestMount8Refused(t *testing.T) {
	t.Parallel()
	e := installed(t, "", "true")
	ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
	none := e.Registry().Ref("team/app", "none")
	e.WriteFile("m/file", nil, 0o644)
	for _, tt := range []struct {
		call string
		code int
		says string
	}{
		{`/sbin/mount.pfmount "$ref" "$dir" -o ro,sugar`, 1, `"sugar"`},
		{`mount -t fuse.pfmount -o sugar=3 "$ref" "$dir"`, 1, `"sugar=3"`},
		{`mount -t fuse.pfmount -s -o sugar "$ref" "$dir"`, 1, `"sugar"`},
		{`/sbin/mount.pfmount "$ref" "$dir" -o foreground`, 1, "foreground"},
		{`/sbin/mount.pfmount "$ref" "$dir" -x`, 1, "-x"},
		{`/sbin/mount.pfmount "$ref"`, 1, "MOUNTPOINT"},
		{`/sbin/mount.pfmount "$ref" "$dir" -o`, 1, "-o"},
		{`/sbin/mount.pfmount "$ref" "$dir" -o uid=x`, 1, "uid"},
		{`/sbin/mount.pfmount "$none" "$dir"`, 32, "not found"},
		{`mount -t fuse.pfmount "$none" "$dir"`, 32, "not found"},
		{`/sbin/mount.pfmount "$ref" "$dir/../file"`, 32, "not a folder"},
		{`/sbin/mount.pfmount "$ref" "$dir" -o require_key`, 1, "key"},
		{`mount -f -t fuse.pfmount "$ref" "$dir"`, 0, ""},
		{`/sbin/mount.pfmount "$ref" "$dir" -sfnv -o _netdev,subdir=world/fs`, 0, ""},
		{`/sbin/mount.pfmount -f "$ref" "$dir" -o subdir=world/none`, 1, "world/none"},
		{`/sbin/mount.pfmount -f "$none" "$dir"`, 32, "not found"},
		{`/sbin/mount.pfmount -f "$ref" "$dir/none"`, 32, "no such file"},
		{`/sbin/mount.pfmount -f "$ref" "$dir" -o sugar`, 1, "sugar"},
	} {
		r := e.Sh(`ref=$1 none=$2 dir=$3; code=0; `+tt.call+` || code=$?; `+flags+`; exit $code`,
			ref, none, dir)
		if r.Code != tt.code || !strings.Contains(r.Stderr, tt.says) || r.Stdout != "" {
			t.Errorf("%s: want exit %d, %q and no mount: %v", tt.call, tt.code, tt.says, r)
		}
	}
	if pids := harness.Pids(e.Bin); len(pids) > 0 {
		t.Errorf("processes left: %v", pids)
	}
}

// TestMount8Twice: what is mounted is not mounted again on top, by the helper as little as by mount -a.
func TestMount8Twice(t *testing.T) {
	t.Parallel()
	e := installed(t, "", "true")
	ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
	r := e.Sh(`ref=$1 dir=$2; mount -t pfmount "$ref" "$dir"
mount -t fuse.pfmount "$ref" "$dir" && exit 8
[ $? = 32 ] || exit 7
mount -f -t fuse.pfmount "$ref" "$dir" && exit 6
`+flags+wayOut, ref, dir).Want(t, 0, "already mounted")
	if strings.Count(r.Stdout, "\n") != 1 {
		t.Errorf("mounts: %v", r)
	}
}

// TestMount8Namespace: -N mounts in another mount namespace, and nowhere else.
func TestMount8Namespace(t *testing.T) {
	t.Parallel()
	e := installed(t, "", "true")
	ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
	r := e.Sh(`ref=$1 dir=$2
unshare -m --propagation private sh -ec "$3; : >\"$HOME/forgot\"; exec sleep 1000" & other=$!
trap 'kill $other' EXIT
until [ -e "$HOME/forgot" ]; do sleep 0.05; done
for ns in /proc/$other/ns/mnt $other; do
  /sbin/mount.pfmount "$ref" "$dir" -N $ns -o subdir=world/fs
  [ -z "$(`+flags+`)" ]
  nsenter -t $other -m sh -c 'test -n "$(ls "$1")"' sh "$dir"
  awk -v d="$dir" '$5 == d {print $6}' /proc/$other/mountinfo
  nsenter -t $other -m umount "$dir"
done
/sbin/mount.pfmount "$ref" "$dir" -N /none && exit 8
[ $? = 32 ]`, ref, dir, forgetMounts).Want(t, 0, "/none")
	if want := "ro,nosuid,nodev,relatime\n"; r.Stdout != want+want {
		t.Errorf("mounted %q", r.Stdout)
	}
}

// noHome takes from an Env what says where a cache and logs are.
func noHome(e *harness.Env) {
	for _, name := range []string{"HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"} {
		e.Unset(name)
	}
}

// TestNoHome: without a HOME, root keeps its cache and logs where the system does, a user in the home
// folder of the passwd entry; a user without one is told what to give.
func TestNoHome(t *testing.T) {
	t.Parallel()
	e := installed(t, "", "mount -t tmpfs none /var/cache && mount -t tmpfs none /var/log")
	noHome(e)
	ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
	for _, command := range []string{`mount -t fuse.pfmount "$ref" "$dir"`, `"$bin" "$ref" "$dir"`} {
		e.Sh(`ref=$1 dir=$2 bin=$3; `+command+`; test -s "$dir/manifest.json"
test -d /var/cache/pfmount/blobs; grep -q mounted /var/log/pfmount/*.log; [ "$(stat -c %a /var/cache/pfmount /var/log/pfmount | sort -u)" = 700 ]
`+wayOut, ref, dir, e.Bin).Want(t, 0)
	}

	u := harness.New(t, harness.User)
	noHome(u)
	home := func(dir string) []string { // the user's in the passwd file
		return private(fmt.Sprintf(`sed 's,^\(%s:.*\):[^:]*:\([^:]*\)$,\1:%s:\2,' /etc/passwd >%s
mount --bind %[3]s /etc/passwd`, harness.User, dir, u.Path("passwd")))
	}
	u.WriteFile("passwd", nil, 0o644)
	u.Prefix = home(u.Path("home"))
	ref = u.Push(harness.Fixture(t, "minimal"))
	u.Run("cat", ref, "model/base").Want(t, 0)
	u.Sh(`test -d "$1/.cache/pfmount/blobs"`, u.Path("home")).Want(t, 0)
	u.Sh(`"$1" "$2" "$3"; test -s "$3/manifest.json"
grep -q mounted "$4"/.local/state/pfmount/*.log; "$1" umount "$3"`,
		u.Bin, ref, u.MountDir(), u.Path("home")).Want(t, 0)
	u.Prefix = home("/nonexistent")
	dir = u.MountDir()
	u.Run(ref, dir).Want(t, 1, "HOME", "/etc/passwd", "--cache-dir")
	u.Run("--cache-dir", u.Path("cache"), ref, dir).Want(t, 1, "HOME", "/etc/passwd", "--log-file")
	u.Run("--log-file", u.Path("home/log"), ref, dir).Want(t, 1, "HOME", "--cache-dir")
	u.Run("cat", ref, "model/base").Want(t, 1, "HOME", "--cache-dir")
	// No entry at all.
	u.Prefix = private(fmt.Sprintf(`sed '/^%s:/d' /etc/passwd >%s
mount --bind %[2]s /etc/passwd`, harness.User, u.Path("passwd")))
	u.Run(ref, dir).Want(t, 1, "HOME", "/etc/passwd", "--cache-dir")
	u.Prefix = nil
	u.Run("--log-file", u.Path("home/log"), "--cache-dir", u.Path("home/cache"), ref, dir).Want(t, 0)
	u.Mounted(ref, dir).Unmount()
}
