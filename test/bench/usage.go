package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// peakEvery is how often the memory of a command is looked at: its peak may be missed by what it
// grows in the last of these spans.
const peakEvery = 5 * time.Millisecond

// usage is what a command took.
type usage struct {
	wall time.Duration
	cpu  time.Duration // user and system
	peak int64         // of resident memory, in bytes
}

// measure runs a command in the place's environment and env. The peak is looked up in /proc while
// it runs, since Linux hands the peak of the process that forks, which holds a registry here, on to
// its child's ru_maxrss (exec_mmap).
func (p *place) measure(ctx context.Context, argv, env []string) (u usage, err error) {
	limited, stop := context.WithTimeout(ctx, longest)
	defer stop()
	cmd := p.command(limited, argv, env)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return u, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(peakEvery)
	defer tick.Stop()
	status := fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)
	for waiting := true; waiting; {
		select {
		case err = <-done:
			waiting = false
		case <-tick.C:
			u.peak = max(u.peak, procBytes(status, "VmHWM"))
		}
	}
	u.wall, u.cpu = time.Since(start), cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()
	if ctx.Err() != nil {
		return u, context.Cause(ctx)
	}
	if limited.Err() != nil {
		err = fmt.Errorf("not done within %v", longest)
	}
	if err != nil {
		return u, fmt.Errorf("%s %s: %w: %s", filepath.Base(argv[0]), strings.Join(argv[1:], " "),
			err, strings.TrimSpace(said.String()))
	}
	return u, nil
}
