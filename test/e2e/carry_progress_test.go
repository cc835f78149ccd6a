package e2e

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// onTerminal starts the binary on a terminal of its own (script(1)); what it shows is the process's
// standard output. Ctrl-C is typed when the file exists.
func onTerminal(e *harness.Env, ctrlC string, args ...string) *harness.Process {
	for i, a := range args {
		args[i] = "'" + a + "'"
	}
	return e.Command("bash", "-euo", "pipefail", "-c",
		`( until test -e "$2"; do sleep 0.05; done; printf '\003' ) | script -qefc "$1" /dev/null`, "bash",
		e.Bin+" "+strings.Join(args, " "), ctrlC)
}

// held is a registry that takes a few uploads and keeps the rest waiting.
func held(e *harness.Env) (hold *faultreg.Hold, rule *faultreg.Rule) {
	hold = faultreg.NewHold()
	return hold, e.Registry().On(faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut,
		From: 40}, hold.Fault())
}

// bar is what the bar of an upload shows at least: blobs, bytes of bytes, rate, time gone and left.
var bar = regexp.MustCompile(`uploading [1-9]\d*/\d+ blobs +\d+% \|█* *\| \([\d.]+/[\d.]+ [kKM]?i?B, [\d.]+ [kKM]?i?B/s\) \[\d+s:\d+s\]`)

// TestBarOnTerminal looks at the terminal of a push: a bar, and after Ctrl-C the way to go on. The
// next push sends only what is missing.
func TestBarOnTerminal(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	hold, rule := held(e)
	defer hold.Release()
	dst := e.Registry().Ref("team/new", "v1")
	push := []string{"push", "oci-layout:" + harness.FixtureDir(t, "layout") + ":basic", dst}
	p := onTerminal(e, e.Path("home/stop"), append([]string{}, push...)...)
	harness.Eventually(t, time.Minute, "a bar", func() bool { return bar.MatchString(p.Stdout()) })
	e.WriteFile("home/stop", nil, 0o600)
	r := p.Wait(time.Minute).Want(t, 130)
	if !strings.Contains(r.Stdout, "the same command goes on from here") ||
		!strings.Contains(r.Stdout, "\r") {
		t.Errorf("after Ctrl-C: %v", r)
	}
	rule.Off()
	e.Run("exists", dst).Want(t, 3)
	srv := e.Registry()
	whole := len(harness.Fixture(t, "basic").Layers) + 1 // the config
	before := srv.Count(faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut,
		Where: func(x *faultreg.Exchange) bool { return x.Status/100 == 2 }})
	srv.Reset()
	got := carry(t, e, push...)
	if n := srv.Count(faultreg.Match{Kind: faultreg.Upload,
		Method: http.MethodPut}); n != whole-before || got.Copied != n || before < 30 {
		t.Errorf("the second push sends %d blobs (%+v), want %d less %d", n, got, whole, before)
	}
	e.Run("verify", dst).Want(t, 0)
}

// TestPlainProgress looks at what is said where there is no terminal: a line now and then on
// standard error, nothing of a terminal's controls, and on standard output the image or one JSON
// object.
func TestPlainProgress(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	hold := faultreg.NewHold()
	defer hold.Release()
	for _, repo := range []string{"team/plain", "team/json", "team/quiet"} {
		e.Registry().On(faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut, Repo: repo,
			From: 10}, hold.Fault())
	}
	line := regexp.MustCompile(`(?m)^uploading: [1-9]\d* of \d+ blobs, [\d.]+ [KM]?i?B of [\d.]+ [KM]?i?B, [\d.]+ [KM]?i?B/s`)
	source := "oci-layout:" + harness.FixtureDir(t, "layout") + ":basic"
	plain := e.Start("push", source, e.Registry().Ref("team/plain", "v1"))
	asJSON := e.Start("push", "--json", source, e.Registry().Ref("team/json", "v1"))
	quiet := e.Start("push", "-q", source, e.Registry().Ref("team/quiet", "v1"))
	harness.Eventually(t, time.Minute, "lines of progress", func() bool {
		return line.MatchString(plain.Stderr()) && line.MatchString(asJSON.Stderr())
	})
	hold.Release()
	r := plain.Wait(harness.Limit).Want(t, 0, "pushed")
	if strings.ContainsAny(r.Stderr, "\r\x1b") || r.Stdout != e.Registry().Ref("team/plain", "v1")+"\n" {
		t.Errorf("plain: %v", r)
	}
	r = asJSON.Wait(harness.Limit).Want(t, 0)
	var object map[string]any
	if err := json.Unmarshal([]byte(r.Stdout), &object); err != nil {
		t.Errorf("%v: %v", err, r)
	}
	for _, field := range []string{"schema", "source", "destination", "manifest_digest", "cid",
		"blobs", "copied", "skipped", "bytes", "seconds"} {
		if object[field] == nil {
			t.Errorf("no %q in %s", field, r.Stdout)
		}
	}
	if r = quiet.Wait(harness.Limit).Want(t, 0); strings.Contains(r.Stderr, "uploading") ||
		strings.Contains(r.Stderr, "pushed") {
		t.Errorf("quiet: %v", r)
	}
}
