package harness

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// Env is one user's surroundings: binary, home, cache, state, runtime folder, a registry and mounts, all
// of this test alone.
type Env struct {
	Dir    string   // holds all of it; short, since sockets live below
	Bin    string   // the binary under this Env's own name
	Prefix []string // a command line before each command; it runs as root
	t      testing.TB
	user   ids

	mu       sync.Mutex // guards what follows
	vars     map[string]string
	registry *faultreg.Server
	points   int // mount points made
	crash    bool
}

// systemPath holds what test/setup.sh installs, and nothing that only one user can run.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// New makes an Env for a user; "" is the one who runs the tests, root as a rule.
func New(t testing.TB, user string) *Env {
	t.Helper()
	dir, err := os.MkdirTemp("", "pfm-")
	if err != nil {
		t.Fatal(err)
	}
	e := &Env{Dir: dir, t: t, user: lookup(t, user), vars: map[string]string{}}
	t.Cleanup(e.finish)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	e.Bin = link(t, dir)
	for _, name := range []string{"home", "cache", "state", "run", "tmp", "m"} {
		e.MakeDir(name)
	}
	for _, name := range []string{"GOMAXPROCS", "GOCOVERDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			e.vars[name] = v
		}
	}
	maps.Copy(e.vars, map[string]string{
		"PATH": systemPath,
		"HOME": e.Path("home"), "TMPDIR": e.Path("tmp"), "LANG": "C.UTF-8",
		"XDG_CACHE_HOME": e.Path("cache"), "XDG_STATE_HOME": e.Path("state"),
		"XDG_RUNTIME_DIR": e.Path("run"),
		"GORACE":          "log_path=" + filepath.Join(dir, "tmp", "race"),
	})
	return e
}

// Each runs a test twice, as the user who runs the tests and as an ordinary user.
func Each(t *testing.T, test func(t *testing.T, e *Env)) {
	for _, name := range []string{"", User} {
		label := name
		if name == "" {
			label = "root"
		}
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			test(t, New(t, name))
		})
	}
}

// Once runs a test as an ordinary user, where nothing of it depends on the user.
func Once(t *testing.T, test func(t *testing.T, e *Env)) {
	t.Run(User, func(t *testing.T) {
		t.Parallel()
		test(t, New(t, User))
	})
}

// Path is a path below the Env's folder.
func (e *Env) Path(name string) string { return filepath.Join(e.Dir, name) }

// MakeDir makes a folder of the user's (0700) below the Env's folder and gives its path.
func (e *Env) MakeDir(name string) string {
	e.t.Helper()
	path := e.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Lchown(path, e.user.uid, e.user.gid); err != nil {
		e.t.Fatal(err)
	}
	return path
}

// WriteFile writes a file of the user's below the Env's folder and gives its path.
func (e *Env) WriteFile(name string, data []byte, mode os.FileMode) string {
	e.t.Helper()
	path := e.Path(name)
	if err := os.WriteFile(path, data, mode); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Lchown(path, e.user.uid, e.user.gid); err != nil {
		e.t.Fatal(err)
	}
	return path
}

// CopyFixture copies a folder of the fixtures ("layout", "store", …) to a place that the user may read.
func (e *Env) CopyFixture(name string) string {
	e.t.Helper()
	dir := e.MakeDir("fixtures/" + name)
	if err := os.CopyFS(dir, os.DirFS(FixtureDir(e.t, name))); err != nil {
		e.t.Fatal(err)
	}
	return dir
}

// CacheDir is the product's cache folder.
func (e *Env) CacheDir() string { return e.Path("cache/pfmount") }

// UID is the user's number.
func (e *Env) UID() int { return e.user.uid }

// Do runs f with the user's rights. f must not call t.Fatal: it runs on another goroutine.
func (e *Env) Do(f func() error) error { return e.user.do(f) }

// Set sets an environment variable of later commands.
func (e *Env) Set(name, value string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.vars[name] = value
}

// Unset removes an environment variable.
func (e *Env) Unset(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.vars, name)
}

// environ is the environment of commands; of the caller's own only GOMAXPROCS and GOCOVERDIR.
func (e *Env) environ() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []string
	for _, name := range slices.Sorted(maps.Keys(e.vars)) {
		list = append(list, name+"="+e.vars[name])
	}
	return list
}

// Crash says that the test kills daemons: sockets and partial files may be left at its end.
func (e *Env) Crash() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.crash = true
}

// Registry is the Env's fault registry, started at its first use.
func (e *Env) Registry() *faultreg.Server {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.registry == nil {
		srv, err := faultreg.New(faultreg.Options{})
		if err != nil {
			e.t.Fatal(err)
		}
		e.registry = srv
	}
	return e.registry
}

// UseRegistry puts another server in place of the Env's own; the Env closes it.
func (e *Env) UseRegistry(srv *faultreg.Server) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.registry = srv
}

// Push uploads an image to the Env's registry and gives its reference, by a tag of its own.
func (e *Env) Push(img *imgbuild.Image) string {
	e.t.Helper()
	srv := e.Registry()
	if err := srv.Push(context.Background(), img, "team/app", tagOf(img)); err != nil {
		e.t.Fatal(err)
	}
	return srv.Ref("team/app", tagOf(img))
}

// Serve has the Env's registry serve an image as it stands, unchecked, and gives its reference.
func (e *Env) Serve(img *imgbuild.Image) string {
	e.t.Helper()
	srv := e.Registry()
	srv.Serve(img, "team/app", tagOf(img))
	return srv.Ref("team/app", tagOf(img))
}

// tagOf is a tag that differs for images that differ in manifest, layers or signature.
func tagOf(img *imgbuild.Image) string { return "t" + img.ManifestDigest()[7:19] }
