package soak

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// unserved are the errors of a mount whose daemon is gone, or that is not mounted for a moment.
var unserved = []string{"ENOTCONN", "ECONNABORTED", "ENOENT", "SIGBUS"}

// ended is the end of a daemon by a signal, and a new mount in its place.
type ended struct {
	name   string
	signal syscall.Signal
}

// Name is the kind of fault.
func (f ended) Name() string { return "daemon " + f.name }

// endLimit is how long a daemon may take to end: 5 s are documented for SIGTERM, the rest is for a
// busy machine.
const endLimit = 15 * time.Second

// Strike ends one of the daemons and mounts again, over the stale mount.
func (f ended) Strike(ctx context.Context, s *stage, st step) (bool, error) {
	m := s.mounts[1+st.rng.IntN(len(s.mounts)-1)]
	errs := unserved
	if f.signal == syscall.SIGTERM {
		errs = append([]string{"EIO"}, unserved...) // reads that wait get 3 s, then EIO
	}
	defer s.ledger.begin(f.Name(), m.name, errs...)()
	pid := m.daemon()
	if err := syscall.Kill(pid, f.signal); err != nil {
		return false, fmt.Errorf("daemon of %s: %w", m.name, err)
	}
	if !until(context.Background(), endLimit, func() bool { return !harness.Alive(pid) }) {
		return false, fmt.Errorf("the daemon of %s still runs %v after %v", m.name, endLimit, f.signal)
	}
	sleep(ctx, between(st.rng, 300*time.Millisecond))
	return true, s.remount(ctx, m)
}

// remount mounts again until it works: a network fault may be on.
func (s *stage) remount(ctx context.Context, m *mount) error {
	for end := time.Now().Add(bound); ; {
		start := time.Now()
		err := s.mount(m)
		if err == nil {
			return nil
		}
		var o outcome
		if o = (outcome{what: "remount of " + m.name, where: m.where(), start: start,
			end: time.Now(), detail: err.Error()}); ctx.Err() != nil {
			return nil
		}
		code, ok := exitCode(err)
		if !ok || time.Now().After(end) {
			return fmt.Errorf("remount of %s: %w", m.name, err)
		}
		o.err = fmt.Sprint("exit ", code)
		if s.judge(o); s.failed() {
			return err
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// busyUnmount is an umount of a mount in use, which must be refused and must leave it as it is.
type busyUnmount struct{}

// Name is the kind of fault.
func (busyUnmount) Name() string { return "umount while busy" }

// Strike acted when umount named the reason.
func (busyUnmount) Strike(_ context.Context, s *stage, st step) (bool, error) {
	m := s.mounts[st.rng.IntN(len(s.mounts))]
	fd, err := unix.Open(m.dir+"/manifest.json", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("%s: open: %w", m.name, err)
	}
	defer unix.Close(fd)
	r := s.run(bound, "umount", m.dir)
	if r.Code != 6 || !strings.Contains(r.Stderr, "in use") {
		return false, fmt.Errorf("%s: want exit 6 and who uses it: %v", m.name, r)
	}
	if state, err := s.status(m.dir); err != nil || state.PID != m.daemon() {
		return false, fmt.Errorf("%s: after the refused umount: %+v, %v", m.name, state, err)
	}
	return true, nil
}

// movedTag moves a tag to another image while it is mounted: the mount keeps its digest.
type movedTag struct{}

// Name is the kind of fault.
func (movedTag) Name() string { return "moved tag" }

// Strike mounts a tag of its own, moves it, and reads on. It acted when the registry then serves
// the other image.
func (movedTag) Strike(ctx context.Context, s *stage, st step) (bool, error) {
	first := s.mounts[0].picture
	s.registry.Serve(first.img, repository, "moving")
	defer s.registry.Forget(repository, "moving")
	m := &mount{name: "moving", ref: s.ref("moving"), dir: s.moving, picture: first, store: s.caches[0]}
	if err := s.remount(ctx, m); err != nil || ctx.Err() != nil {
		return false, err
	}
	s.registry.Serve(s.spare.img, repository, "moving")
	asked := faultreg.Match{Kind: faultreg.Manifest, Ref: "moving"}
	before := s.registry.Count(asked)
	other := s.run(bound, "inspect", "--json", m.ref)
	acted := other.Code == 0 && strings.Contains(other.Stdout, s.spare.img.ManifestDigest()) &&
		s.registry.Count(asked) > before
	p, err := startReader()
	if err != nil {
		return false, err
	}
	alive := true
	for i := 0; i < 8 && alive && !s.failed(); i++ {
		alive = s.job(p, m, kinds[i%2], m.pick(st.rng), st.rng)
	}
	if alive {
		p.end(nil)
	}
	state, err := s.status(m.dir)
	if err == nil && state.ManifestDigest != first.img.ManifestDigest() {
		err = fmt.Errorf("the mount shows %s after its tag moved, want %s", state.ManifestDigest,
			first.img.ManifestDigest())
	}
	if r := s.run(bound, "umount", m.dir); err == nil && r.Code != 0 {
		err = fmt.Errorf("umount: %v", r)
	}
	return acted, err
}
