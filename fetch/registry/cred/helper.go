package cred

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/fetch/safetext"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// helperPrefix begins the names of credential helpers.
// https://github.com/docker/docker-credential-helpers
const helperPrefix = "docker-credential-"

// Bounds of a credential helper.
const (
	helperLimit  = 10 * time.Second // until it has answered
	helperGrace  = time.Second      // then, until no process holds its output
	maxHelperOut = 64 << 10         // bytes of its answer
)

// helperName keeps a path out of the name of the program.
var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// helperError is a helper that is not there or fails. What it says for itself is not repeated: it
// may be a secret.
type helperError struct {
	name string
	file string // the login file that names it
	text string
}

func (e *helperError) Error() string {
	return helperPrefix + safetext.Clip(e.name, 64) +
		" (named in " + safetext.Clip(e.file, 255) + ") " + e.text
}

// askHelper asks a credential helper; the empty credential when it knows none. It runs in a
// process group of its own, which ends with it, and without what is secret in our environment.
func askHelper(ctx context.Context, name, server string) (auth.Credential, error) {
	fail := func(text string) (auth.Credential, error) {
		return auth.EmptyCredential, &helperError{name: name, text: text}
	}
	if !helperName.MatchString(name) {
		return fail("is not the name of a helper")
	}
	path, err := exec.LookPath(helperPrefix + name)
	if err != nil {
		return fail("is not in PATH")
	}
	timed, cancel := context.WithTimeout(ctx, helperLimit)
	defer cancel()
	out := &boundedBuffer{limit: maxHelperOut, full: cancel}
	cmd := exec.CommandContext(timed, path, "get")
	cmd.Stdin, cmd.Stdout = strings.NewReader(server+"\n"), out // stderr goes nowhere
	cmd.Env = helperEnv(os.Environ())
	// A group to kill, and no terminal to wait for.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = helperGrace
	err = cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind
	}
	switch {
	case ctx.Err() != nil:
		return auth.EmptyCredential, context.Cause(ctx)
	case out.over:
		return fail("answered with more than 64 KiB")
	case timed.Err() != nil:
		return fail("gave no answer in " + helperLimit.String())
	case errors.Is(err, exec.ErrWaitDelay):
		// It has answered and left something behind that holds its output.
	case err != nil && strings.Contains(strings.ToLower(out.buf.String()), "credentials not found"):
		return auth.EmptyCredential, nil
	case err != nil:
		return fail("failed: " + helperEnd(err))
	}
	c, wrong := helperAnswer(out.buf.Bytes())
	if wrong != "" {
		return fail(wrong)
	}
	return c, nil
}

// helperAnswer reads the login that a helper printed, or says what is wrong with it.
func helperAnswer(text []byte) (c auth.Credential, wrong string) {
	var answer struct{ Username, Secret string }
	if json.Unmarshal(text, &answer) != nil {
		return c, "gave an answer that is not JSON"
	}
	switch {
	case answer.Secret == "":
		return auth.EmptyCredential, ""
	case answer.Username == "<token>":
		return auth.Credential{RefreshToken: answer.Secret}, ""
	case answer.Username == "":
		return c, "gave a secret and no user"
	}
	return auth.Credential{Username: answer.Username, Password: answer.Secret}, ""
}

// helperEnd says how a helper ended.
func helperEnd(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ProcessState.String()
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return "it could not be run"
}

// helperEnv is what a helper gets to know: all that it may need (HOME, AWS_*, CLOUDSDK_*), but no
// secret of ours.
func helperEnv(environ []string) []string {
	return slices.DeleteFunc(environ, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		switch name {
		case "OCI_BEARER", "OCI_USERNAME", "OCI_PASSWORD",
			"PF_OCI_REG_SIGN_KEY", "PF_FILE_REG_SIGN_KEY":
			return true
		}
		return false
	})
}

// boundedBuffer keeps what is written up to a limit, and says when it is full.
type boundedBuffer struct {
	buf   bytes.Buffer
	limit int
	over  bool
	full  func()
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > b.limit {
		b.over = true
		b.full()
		return len(p), nil
	}
	return b.buf.Write(p)
}
