package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/safedir"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

// Ask asks the daemon of a mount for its state.
func Ask(ctx context.Context, m *mounts.Mount) (*State, error) {
	s := new(State)
	return s, ask(ctx, m, "/status", mounts.ProbeLimit, s)
}

// ask sends a request to the daemon of a mount and reads the JSON that it answers, for at most
// limit. The directories to look in belong to the mount's owner and may hold anything: also
// looking is bounded.
func ask(ctx context.Context, m *mounts.Mount, path string, limit time.Duration, into any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type answer struct {
		data json.RawMessage
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		a.err = askIn(ctx, stateDir(m.UID), m, path, &a.data)
		if a.err != nil {
			for _, dir := range otherStateDirs(m.UID) {
				if err := askIn(ctx, dir, m, path, &a.data); err == nil {
					a.err = nil
					break
				}
			}
		}
		answers <- a
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			return a.err
		}
		return json.Unmarshal(a.data, into)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// askIn asks at the socket of a mount in one folder.
func askIn(ctx context.Context, folder string, m *mounts.Mount, path string, into any) error {
	fd, err := openSocket(folder, socketName(m.Point), m.UID)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	socket := fmt.Sprintf("/proc/self/fd/%d", fd)
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://pfmount"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the mount's process answers %s", resp.Status)
	}
	return json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(into)
}

// openSocket opens a socket of that user's without connecting to it, so that what was checked is
// what is asked: a symlink in its place would lead root to a socket that only root may use.
func openSocket(folder, name string, uid int) (int, error) {
	dir, err := safedir.Open(folder, uid, 0)
	if err != nil {
		return -1, err
	}
	defer dir.Close()
	fd, err := unix.Openat(dir.Fd(), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: filepath.Join(folder, name), Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != uid) {
		err = fmt.Errorf("it is not a socket of user %d", uid)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, &os.PathError{Op: "use", Path: filepath.Join(folder, name), Err: err}
	}
	return fd, nil
}

// otherStateDirs lists where else the sockets of a user's mounts can be: where the environment of
// each says, since a service has another one than a shell.
func otherStateDirs(uid int) []string {
	var dirs []string
	names, _ := filepath.Glob("/proc/[0-9]*/comm") // the pattern is well formed
	for _, name := range names {
		if comm, err := os.ReadFile(name); err != nil || string(comm) != processName+"\n" {
			continue
		}
		proc := filepath.Dir(name)
		if !isOwnDir(proc, uid) {
			continue
		}
		env, err := os.ReadFile(proc + "/environ") // another user's only as root
		if err != nil {
			continue
		}
		if dir := stateDirBy(uid, environ(env)); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// environ gives the variables of a /proc/PID/environ.
func environ(block []byte) func(string) string {
	return func(name string) string {
		for v := range bytes.SplitSeq(block, []byte{0}) {
			if value, ok := bytes.CutPrefix(v, []byte(name+"=")); ok {
				return string(value)
			}
		}
		return ""
	}
}

// askers bounds how many mounts are asked at a time: one that hangs holds up few others.
const askers = 16

// States asks every mount of pfmount that this process can see, or only the one at a mount point,
// and where check is set also whether its tag has moved on.
func States(ctx context.Context, only string, check bool) ([]State, error) {
	all, err := mounts.Read()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(m mounts.Mount) bool {
		return !m.Ours() || only != "" && m.Point != only
	})
	states := make([]State, len(all))
	var g errgroup.Group
	g.SetLimit(askers)
	for i := range all {
		g.Go(func() error {
			states[i] = stateOf(ctx, &all[i], check)
			return nil
		})
	}
	return states, g.Wait()
}

// stateOf asks one mount. What cannot be asked is told as far as it shows from outside.
func stateOf(ctx context.Context, m *mounts.Mount, check bool) State {
	s, err := Ask(ctx, m)
	if err != nil {
		h := mounts.Probe(m)
		s = &State{
			Mountpoint: m.Point, Image: m.Source, Stale: h == mounts.Stale, LastErrors: []string{},
		}
		if !s.Stale {
			s.LastErrors = append(s.LastErrors, "its process does not tell its state")
		}
	}
	switch {
	case check && err == nil:
		s.TagState = askTag(ctx, m)
	case check:
		s.TagState = new(TagState)
	}
	return *s
}
