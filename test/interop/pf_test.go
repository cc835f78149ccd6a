package interop

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
)

// pfLimit is far above what pf takes for 1,500 files, about a minute on an idle machine.
const pfLimit = 15 * time.Minute

// pair is pfmount and pf beside each other: one Env, one registry, one store of pf's.
type pair struct {
	*harness.Env
	t *testing.T
}

func newPair(t *testing.T) *pair {
	t.Helper()
	t.Parallel()
	p := &pair{Env: harness.New(t, ""), t: t}
	p.Set("PF_STORE", p.Path("pfstore"))
	return p
}

// tool is a program of the reference's.
func (p *pair) tool(name string) string {
	p.t.Helper()
	dir, err := tools()
	if err != nil {
		p.t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// pf runs the reference tool, which must succeed, and gives its output without the last newline.
func (p *pair) pf(args ...string) string {
	p.t.Helper()
	return strings.TrimSpace(p.tryPF(args...).Want(p.t, 0).Stdout)
}

func (p *pair) tryPF(args ...string) harness.Result {
	p.t.Helper()
	return p.Command(append([]string{p.tool("pf/bin/pf")}, args...)...).Wait(pfLimit)
}

// ok runs pfmount, which must succeed.
func (p *pair) ok(args ...string) harness.Result {
	p.t.Helper()
	return p.Run(args...).Want(p.t, 0)
}

// snapshot captures a folder with pf, taking all that pf can be made to take, and gives the id.
func (p *pair) snapshot(dir string, more ...string) string {
	p.t.Helper()
	return p.pf(append([]string{"snapshot", "--fs-root", dir, "--allow-empty-engine-layers",
		"--no-default-ignores", "--ignore-from", "/dev/null"}, more...)...)
}

// ref is a reference of the Env's registry, as pfmount takes it.
func (p *pair) ref(tag string) string { return p.Registry().Ref("team/app", tag) }

// url is the same as pf takes it.
func (p *pair) url(tag string) string { return "oci://" + p.ref(tag) }

// facts is what inspect says.
type facts struct {
	CID     string   `json:"cid"`
	Parents []string `json:"parents"`
	Pages   int      `json:"pages"`
	Missing int      `json:"missing"`
}

func (p *pair) inspect(ref string) facts {
	p.t.Helper()
	var f facts
	if err := json.Unmarshal([]byte(p.ok("inspect", "--json", ref).Stdout), &f); err != nil {
		p.t.Fatal(err)
	}
	return f
}

// cid fails the test unless ref is the image with an id.
func (p *pair) cid(ref, want string) {
	p.t.Helper()
	if got := p.inspect(ref).CID; got != want {
		p.t.Errorf("%s is image %s, want %s", ref, got, want)
	}
}

// pull has pf pull an image, which must have an id.
func (p *pair) pull(url, want string) {
	p.t.Helper()
	if out := p.pf("pull", url); !strings.Contains(out, want) {
		p.t.Errorf("pf pulled %s as %q, want %s", url, out, want)
	}
}

// checkout has pf restore an image's tree, and gives its folder.
func (p *pair) checkout(cid string) string {
	p.t.Helper()
	dir := filepath.Join(p.MakeDir("out-"+filepath.Base(p.MountDir())), "tree")
	p.pf("checkout", "--allow-absolute-symlinks", "--into", dir, cid)
	return dir
}
