// Demo shows pfmount at work: it starts a registry on this machine, pushes a sample session of the
// fixtures into it, mounts it, reads a few things, says what each of them fetched, and unmounts.
// demo BINARY
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	memory "github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo BINARY")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

func run(binary string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) // so that the mount goes, too
	defer stop()
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "pfmount-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	srv := newRegistry()
	defer srv.Close()
	layout, err := filepath.Abs("testdata/fixtures/layout")
	if err != nil {
		return err
	}
	ref := srv.Listener.Addr().String() + "/bikes/routes:many"
	s := stage{dir: dir, binary: binary, srv: srv}
	if out, err := s.command(binary, "push", "oci-layout:"+layout+":many", ref).CombinedOutput(); err != nil {
		return fmt.Errorf("push: %w: %s", err, out)
	}
	fmt.Printf("A registry on %s holds the session bikes/routes:many.\n", srv.Listener.Addr())
	mnt := filepath.Join(dir, "sess")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		return err
	}
	defer func() { _ = s.quiet("umount", "--lazy", mnt) }() // when a step failed
	for _, step := range []struct{ what, command string }{
		{"Mount it. The signature is checked before anything is shown.", "pfmount " + ref + " sess"},
		{"Look around: names and sizes are signed facts, nothing is fetched.",
			"ls -l sess sess/world/fs | head -12; find sess/world/fs -type f | wc -l"},
		{"Read one file: one layer is fetched, checked, cached.",
			"f=$(find sess/world/fs -type f | sort | head -1); echo \"$f\"; cat \"$f\""},
		{"Read it again: from the cache.", "f=$(find sess/world/fs -type f | sort | head -1); md5sum \"$f\""},
		{"Search everything: now the rest is fetched.", "grep -rl gamma sess/world/fs | wc -l"},
		{"What did the mount do?", "pfmount status"},
		{"Unmount. Mounted again, the session comes from the cache.",
			"pfmount umount sess && pfmount " + ref +
				" sess && grep -rl gamma sess/world/fs | wc -l && pfmount umount sess"},
	} {
		if err := s.step(step.what, step.command); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
	}
	return nil
}

// registry is one in memory, which counts what it is asked and what it answers.
type registry struct {
	*httptest.Server
	requests, bytes atomic.Int64
}

func newRegistry() *registry {
	r := new(registry)
	handler := memory.New(memory.Logger(log.New(io.Discard, "", 0)))
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.requests.Add(1)
		handler.ServeHTTP(&counted{w, &r.bytes}, req)
	}))
	return r
}

// counted counts the bytes of an answer's body.
type counted struct {
	http.ResponseWriter
	bytes *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// stage runs the steps in a folder of their own, with a cache of their own.
type stage struct {
	dir, binary string
	srv         *registry
}

// step runs a command as a user would type it and says what the registry was asked.
func (s stage) step(what, command string) error {
	fmt.Printf("\n# %s\n$ %s\n", what, command)
	requests, sent := s.srv.requests.Load(), s.srv.bytes.Load()
	start := time.Now()
	cmd := s.command("sh", "-ec", command)
	out, err := cmd.CombinedOutput()
	fmt.Print(string(bytes.TrimLeft(out, "\n")))
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	requests, sent = s.srv.requests.Load()-requests, s.srv.bytes.Load()-sent
	noun := "requests"
	if requests == 1 {
		noun = "request"
	}
	fmt.Printf("  → %d %s, %.1f KB, %v\n", requests, noun, float64(sent)/1000,
		time.Since(start).Round(time.Millisecond))
	return nil
}

func (s stage) quiet(args ...string) error { return s.command(s.binary, args...).Run() }

func (s stage) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PATH=") && !strings.HasPrefix(v, "XDG_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(s.binary)+":"+os.Getenv("PATH"),
		"XDG_CACHE_HOME="+s.dir+"/cache",
		"XDG_STATE_HOME="+s.dir+"/state", "XDG_RUNTIME_DIR="+s.dir+"/run", "LC_ALL=C")
	return cmd
}
