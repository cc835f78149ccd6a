package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// readerVar makes this test's binary a reader process.
const readerVar = "PFMOUNT_SOAK_READER"

// process is a reader process.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startReader() (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), readerVar+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the test; a reader ends with its input
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{cmd: cmd, in: in, out: json.NewDecoder(out)}, nil
}

// errHung says that a reader did not end in time.
var errHung = errors.New("hangs")

// do has the process do a job. When stop is closed first, the process is killed, which must take
// effect at once.
func (p *process) do(j job, limit time.Duration, stop <-chan time.Time) (r reply, killed bool, err error) {
	if err := json.NewEncoder(p.in).Encode(j); err != nil {
		return r, false, err
	}
	done := make(chan error, 1)
	go func() { done <- p.out.Decode(&r) }()
	select {
	case err := <-done:
		return r, false, err
	case <-stop:
		return reply{}, true, p.end(done)
	case <-time.After(limit):
		return reply{}, false, errHung
	}
}

// killLimit is how long a killed reader may take to be gone; it takes a fifth of a second.
const killLimit = 15 * time.Second

// end kills the process and waits for it; done is what waits for its answer.
func (p *process) end(done <-chan error) error {
	p.cmd.Process.Kill()
	if done != nil {
		select {
		case <-done:
		case <-time.After(killLimit):
			return errHung
		}
	}
	p.in.Close()
	p.cmd.Wait()
	return nil
}

// crowd are the readers of a round.
type crowd struct {
	s    *stage
	seed uint64
}

// kinds are all ways to read, in the order in which each reader goes through them.
var kinds = []string{"whole", "random", "killed", "mmap", "whole", "walk", "parallel", "signals"}

// read is one reader: job after job until ctx ends.
func (c *crowd) read(ctx context.Context, n int) {
	rng := rand.New(rand.NewPCG(c.seed, uint64(n)))
	var p *process
	for i := n; ctx.Err() == nil && !c.s.failed(); i++ {
		if p == nil {
			var err error
			if p, err = startReader(); err != nil {
				c.s.fail("start a reader: %v", err)
				return
			}
		}
		m := c.s.mounts[rng.IntN(len(c.s.mounts))]
		if !c.s.job(p, m, kinds[i%len(kinds)], m.pick(rng), rng) {
			p = nil
		}
	}
	if p != nil {
		p.end(nil)
	}
}

// pick chooses a file, now and then by its digest.
func (m *mount) pick(rng *rand.Rand) (path string) {
	path = m.picture.files[rng.IntN(len(m.picture.files))]
	if rng.IntN(8) == 0 {
		path = bigFile
	}
	return path
}

// job does and judges one job; false when the process is gone.
func (s *stage) job(p *process, m *mount, kind, path string, rng *rand.Rand) bool {
	j := job{Op: kind, Path: m.dir + "/" + path, Truth: m.picture.truth(path), Seed: rng.Uint64()}
	if rng.IntN(6) == 0 {
		hex := m.picture.hex(path)
		j.Path = m.dir + "/blobs/sha256/" + hex[:2] + "/" + hex
	}
	var stop <-chan time.Time
	switch kind {
	case "walk":
		j.Path, j.Truth = m.dir+"/world/fs", m.picture.names
	case "killed":
		j.Op, stop = "whole", time.After(between(rng, 60*time.Millisecond))
	}
	what := fmt.Sprintf("%s: %s by %s", m.name, strings.TrimPrefix(j.Path, m.dir+"/"), kind)
	start := time.Now()
	r, killed, err := p.do(j, bound, stop)
	o := outcome{what: what, where: m.where(), err: r.Err, start: start, end: time.Now()}
	switch {
	case err != nil:
		s.fail("%s: %v after %v", what, err, time.Since(start).Round(time.Millisecond))
		s.dump(m)
		p.cmd.Process.Kill()
		return false
	case killed:
		s.counts.add("reader "+kind, 1)
		return false
	case r.Wrong != "":
		s.fail("%s: WRONG: %s", what, r.Wrong)
	}
	if r.Err == "" && kind != "killed" {
		s.counts.add("reader "+kind, 1)
	}
	s.counts.add(reads, 1)
	s.counts.add(bytesRead, r.Bytes)
	s.judge(o)
	return true
}
