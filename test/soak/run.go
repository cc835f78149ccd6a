package soak

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/test/harness"
)

// soak goes round after round until the time is over, and reports.
func soak(ctx context.Context, s *stage, seed uint64, length time.Duration) {
	ctx, s.cancel = context.WithCancel(ctx)
	defer s.cancel()
	if err := s.atFirst(ctx); err != nil {
		s.t.Fatal(err)
	}
	rounds := 0
	for begun := time.Now(); ctx.Err() == nil && (rounds == 0 || time.Since(begun) < length); rounds++ {
		s.round(ctx, seed, rounds)
		fmt.Printf("soak: round %d ended after %v: %d reads, %d clean errors\n", rounds,
			time.Since(s.journal.start).Round(time.Second), s.counts.get(reads), s.counts.get(cleanErrors))
	}
	stopped := ctx.Err() != nil
	if stopped && !s.failed() {
		fmt.Println("soak: interrupted; kinds that were not met are not counted against it")
	}
	s.unmount()
	fmt.Printf("soak: seed %d, %d rounds in %v\n%s", seed, rounds,
		time.Since(s.journal.start).Round(time.Second), s.counts)
	if names := s.unmet(); len(names) > 0 && !stopped {
		s.fail("never met: %s", strings.Join(names, ", "))
	}
	s.report(seed)
}

// unmount ends every mount, after which nothing may be left of them. A run that was stopped may
// have none in a place.
func (s *stage) unmount() {
	for _, dir := range append(s.dirs(), s.moving) {
		if len(harness.MountLines(s.t, dir)) == 0 {
			continue
		}
		if r := s.run(bound, "umount", dir); r.Code != 0 {
			s.fail("umount: %v", r)
		}
	}
	if !until(context.Background(), endLimit, func() bool { return len(harness.Pids(s.env.Bin)) == 0 }) {
		s.fail("processes left %v after the last umount: %v", endLimit, harness.Pids(s.env.Bin))
	}
	for _, dir := range append(s.dirs(), s.moving) {
		if lines := harness.MountLines(s.t, dir); len(lines) > 0 {
			s.fail("still mounted: %v", lines)
		}
	}
}

// dirs are the mount points.
func (s *stage) dirs() (list []string) {
	for _, m := range s.mounts {
		list = append(list, m.dir)
	}
	return list
}

// report fails the test when the run failed, with what helps to find out why. It keeps logs and caches.
func (s *stage) report(seed uint64) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) == 0 {
		return
	}
	kept, err := os.MkdirTemp("", "pfmount-soak-")
	if err == nil {
		for name, dir := range map[string]string{"logs": s.env.Path("state"),
			"shared": s.caches[0].dir, "small": s.caches[1].dir} {
			if e := os.CopyFS(kept+"/"+name, os.DirFS(dir)); e != nil {
				err = e
			}
		}
	}
	s.t.Errorf("%s\n\nthe last actions (seconds since the start):\n%s\n\nkept: %s (%v)\nagain: make soak MINUTES=1 SEED=%d\n",
		strings.Join(s.failures, "\n"), s.journal.last(), kept, err, seed)
}

func (s *stage) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.failures) > 0
}

// dump has the daemon of a mount that hangs print its goroutines into its log, which ends it.
func (s *stage) dump(m *mount) {
	syscall.Kill(m.daemon(), syscall.SIGABRT)
	sleep(context.Background(), time.Second)
}
