package harness

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// finish unmounts what is mounted and fails the test for everything that is left then.
func (e *Env) finish() {
	lines := e.mountsBelow()
	for i := len(lines) - 1; i >= 0; i-- {
		dir := lines[i].Dir
		if lines[i].Type == "fuse.pfmount" && !e.isCrash() {
			for try := 0; e.unmountAtEnd(dir, try == passes); try++ {
				time.Sleep(50 * time.Millisecond)
			}
		}
		if len(MountLines(e.t, dir)) > 0 {
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	}
	e.checkProcesses()
	if e.t.Failed() {
		e.t.Logf("logs:\n%s", e.Logs())
	}
	e.checkFiles()
	e.mu.Lock()
	if e.registry != nil {
		e.registry.Close()
	}
	e.mu.Unlock()
	for _, l := range e.mountsBelow() {
		e.t.Errorf("left mounted: %+v", l)
		return // nothing may be removed below a mount
	}
	if err := os.RemoveAll(e.Dir); err != nil {
		e.t.Errorf("clean-up: %v", err)
	}
}

// unmountAtEnd unmounts dir, or asks for another try, but after the last.
func (e *Env) unmountAtEnd(dir string, last bool) (again bool) {
	p := e.Start("umount", dir)
	select {
	case <-p.done:
		r := p.result()
		if passing(r) && !last {
			return true
		}
		if r.Code != 0 {
			e.t.Errorf("umount at the end: %v", r)
		}
	case <-time.After(time.Minute):
		p.Kill()
		e.t.Errorf("umount of %s at the end hangs", dir)
	}
	return false
}

// checkProcesses waits for the Env's processes to end, and kills those that do not.
func (e *Env) checkProcesses() {
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) && len(Pids(e.Bin)) > 0 {
		if e.isCrash() {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, pid := range Pids(e.Bin) {
		if !e.isCrash() {
			e.t.Errorf("process left: %d %q", pid, Cmdline(pid))
		}
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func (e *Env) isCrash() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.crash
}

// checkFiles looks for sockets, partial files and race reports.
func (e *Env) checkFiles() {
	filepath.WalkDir(e.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		switch {
		case d.Type() == fs.ModeSocket && !e.isCrash():
			e.t.Errorf("socket left: %s", path)
		case strings.HasPrefix(d.Name(), "race.") && filepath.Dir(path) == e.Path("tmp"):
			data, _ := os.ReadFile(path)
			e.t.Errorf("race detector: %s", clip(string(data)))
		case filepath.Dir(path) == filepath.Join(e.CacheDir(), "tmp") && !e.isCrash():
			e.t.Errorf("partial file left: %s", path)
		}
		return nil
	})
}

// Logs is the end of what the daemons logged.
func (e *Env) Logs() string {
	var b strings.Builder
	filepath.WalkDir(e.Path("state"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			data, _ := os.ReadFile(path)
			b.WriteString("-- " + d.Name() + "\n" + clip(string(data)))
		}
		return nil
	})
	return b.String()
}
