package mounts

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const fuseConf = "/etc/fuse.conf" // where the administrator permits allow_other

// helper mounts by way of fusermount3(1), set-user-id root, which lets users mount on directories
// of their own and hands the connection back over a socket.
type helper struct{}

var _ attacher = helper{}

// attach names the directory by its path, since the helper takes no descriptor. The helper goes to
// the directory, looks whether it is the user's there, and mounts on where it stands.
func (helper) attach(at *Dir, o Options) (int, error) {
	if o.AllowOther {
		if err := checkAllowOther(fuseConf); err != nil {
			return -1, err
		}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socketpair: %w", err)
	}
	local, remote := fds[0], os.NewFile(uintptr(fds[1]), "fusermount")
	defer unix.Close(local)
	defer remote.Close()
	if err := runHelper(remote, "-o", helperOptions(o), "--", at.path); err != nil {
		return -1, explainHelper(err)
	}
	return receive(local)
}

// helperOptions returns the option string. In fsname the helper takes a backslash as the escape of
// what follows.
func helperOptions(o Options) string {
	name := strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(o.Source)
	list := fmt.Sprintf("ro,nosuid,nodev,default_permissions,max_read=%d,subtype=%s,fsname=%s",
		o.maxRead(), Subtype, name)
	if o.AllowOther {
		list = "allow_other," + list
	}
	if o.NoExec {
		list = "noexec," + list
	}
	return list
}

func (helper) detach(at *place, lazy bool) error {
	args := []string{"-u", "--", at.point}
	if lazy {
		args = append([]string{"-z"}, args...)
	}
	err := runHelper(nil, args...)
	// The reason is told in words only. The helper never translates them.
	if err != nil && strings.Contains(strings.ToLower(err.Error()), unix.EBUSY.Error()) {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

// runHelper runs fusermount3 with the socket conn, if any, and returns what it has to say when it
// fails.
func runHelper(conn *os.File, args ...string) error {
	bin, err := findHelper(exec.LookPath)
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd := exec.Command(bin, args...)
	cmd.Stderr = &said
	cmd.Env = []string{}
	if conn != nil {
		cmd.ExtraFiles = []*os.File{conn} // becomes 3
		cmd.Env = append(cmd.Env, "_FUSE_COMMFD=3")
	}
	err = cmd.Run()
	if err == nil {
		return nil
	}
	if text := strings.Join(strings.Fields(said.String()), " "); text != "" {
		return fmt.Errorf("%s (%w)", text, err)
	}
	return fmt.Errorf("%s: %w", bin, err)
}

// Helper returns the path of the program by which ordinary users mount; ErrHelper when there is
// none.
func Helper() (string, error) { return findHelper(exec.LookPath) }

// OthersAllowed is ErrAllowOther unless users may let others into their mounts.
func OthersAllowed() error { return checkAllowOther(fuseConf) }

// findHelper returns the path of fusermount3, or of fusermount, also where PATH leaves it out.
func findHelper(look func(string) (string, error)) (string, error) {
	for _, dir := range []string{"", "/usr/bin", "/bin"} {
		for _, name := range []string{"fusermount3", "fusermount"} {
			if bin, err := look(filepath.Join(dir, name)); err == nil {
				return bin, nil
			}
		}
	}
	return "", fmt.Errorf(
		"%w: an ordinary user needs one of them to mount: install the package fuse3", ErrHelper)
}

// explainHelper adds to an error of the helper what it does not say itself.
func explainHelper(err error) error {
	if derr := Device(); derr != nil {
		return fmt.Errorf("%w; %w", err, derr)
	}
	return err
}

// checkAllowOther reports whether the configuration file conf lets users give others access.
func checkAllowOther(conf string) error {
	content, err := os.ReadFile(conf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrAllowOther, err)
	}
	if !allowsOther(bytes.NewReader(content)) {
		return fmt.Errorf("%w: %s has no line 'user_allow_other'; "+
			"without it only root may use allow_other", ErrAllowOther, conf)
	}
	return nil
}

// allowsOther reports whether a fuse.conf has the line user_allow_other.
func allowsOther(conf io.Reader) bool {
	for s := bufio.NewScanner(conf); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		if strings.TrimSpace(line) == "user_allow_other" {
			return true
		}
	}
	return false
}

// receive takes the connection from the socket, into which the helper has put it before it ended.
func receive(socket int) (int, error) {
	data, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return -1, fmt.Errorf("fusermount3: no connection came back: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		err = errors.Join(err, unix.EPROTO)
		return -1, fmt.Errorf("fusermount3: %d control messages came back: %w", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		err = errors.Join(err, unix.EPROTO)
		return -1, fmt.Errorf("fusermount3: %d descriptors came back: %w", len(fds), err)
	}
	return fds[0], nil
}
