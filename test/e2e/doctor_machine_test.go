package e2e

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// doctorShape is what each check of `doctor --json` finds, beside name, outcome, text, advice and seconds.
const doctorShape = `pfmount.arch string
pfmount.go string
pfmount.uid integer
kernel.read_ahead_settable bool
kernel.release string
fusermount.path string
fusermount.setuid bool
fusermount.version string
allow_other.allowed bool
cache.blobs integer
cache.dir string
cache.exists bool
cache.file_system string
cache.free_bytes integer
cache.limit_bytes integer
cache.mode string
cache.owner integer
cache.used_bytes integer
cache.used_complete bool
mounts.mounts[].image string
mounts.mounts[].mountpoint string
mounts.mounts[].pid integer
mounts.mounts[].stale bool
environment.set[] string
proxies.proxies.HTTPS_PROXY string
hosts.dir string
hosts.hosts_toml empty list
reference.kind string
reference.reference string
route.endpoints[].capabilities[] string
route.endpoints[].certificate_unchecked bool
route.endpoints[].credentials string
route.endpoints[].mirror bool
route.endpoints[].url string
route.hosts_file string
manifest.bytes integer
manifest.digest digest
manifest.id digest
manifest.layers integer
manifest.wire_bytes integer
signature.key string
top-level.dirs integer
top-level.files integer
top-level.left integer
top-level.pages integer
top-level.read integer
blob.bytes integer
blob.digest digest
total.bytes integer
total.requests integer`

// TestDoctorJSON: shape and values of `doctor --json`.
func TestDoctorJSON(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Fixture(t, "basic")
	m := e.Mount(e.Push(img))
	e.Set("HTTPS_PROXY", "http://u:S3CRET@proxy.example:3128")
	e.Set("OCI_BEARER", "S3CRET")
	got, r := doctor(t, e, 0, m.Ref)
	if strings.Contains(r.Stdout+r.Stderr, "S3CRET") ||
		!strings.Contains(got.text("proxies"), "HTTPS_PROXY http://proxy.example:3128") ||
		!strings.Contains(got.text("environment"), "OCI_BEARER") ||
		!strings.Contains(got.text("credentials"), "the token in OCI_BEARER") {
		t.Errorf("secrets, or what hides them: %v", r)
	}
	golden(t, r, `checks[].name string
checks[].outcome string
checks[].seconds number
checks[].text string
checks[].values.arch string
checks[].values.go string
checks[].values.uid integer
schema integer
time time
version string`)
	var all struct {
		Checks []struct {
			Name   string
			Values json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range all.Checks {
		if len(c.Values) > 0 {
			for line := range strings.SplitSeq(shape(t, string(c.Values)), "\n") {
				lines = append(lines, c.Name+"."+line)
			}
		}
	}
	if want := strings.Split(doctorShape, "\n"); !slices.Equal(lines, want) {
		t.Errorf("got the shape\n%s\nwant\n%s", strings.Join(lines, "\n"), doctorShape)
	}
	if !strings.Contains(got.text("manifest"), img.ManifestDigest()) ||
		!strings.Contains(got.text("cache"), e.CacheDir()) {
		t.Errorf("no digest, or no cache folder: %v", r)
	}
}

// TestDoctorUsers: without an image, as root and as an ordinary user, all is well; as text it is
// one line a check, in ASCII.
func TestDoctorUsers(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		before := snapshot(e)
		r := e.Run("doctor", "--cache-dir", e.Path("home/Ordner-größer")).Want(t, 0)
		if after := snapshot(e); !slices.Equal(before, after) {
			t.Errorf("doctor changed files:\n%q\n%q", before, after)
		}
		lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
		if len(lines) != 10 || strings.ContainsFunc(r.Stdout,
			func(r rune) bool { return r >= 0x7f || r < ' ' && r != '\n' }) {
			t.Errorf("%d lines: %v", len(lines), r)
		}
		for _, line := range lines {
			if word := strings.Fields(line)[0]; word != "ok" && word != "warn" {
				t.Errorf("got %q", line)
			}
		}
	})
}

// TestDoctorMachine: what is wrong with this machine is told with what to do, and decides the exit code.
func TestDoctorMachine(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		set   func(*harness.Env) []string
		code  int
		check string
		says  []string
	}{
		{"cache in a file", func(e *harness.Env) []string {
			return []string{"--cache-dir", e.WriteFile("file", nil, 0o600) + "/below"}
		}, 7, "cache", []string{"not a directory", "--cache-dir"}},
		{"cache of another user",
			func(e *harness.Env) []string { return []string{"--cache-dir", "/usr/lib"} }, 7,
			"cache", []string{"permission denied", "--cache-dir"}},
		{"a proxy that is none",
			func(e *harness.Env) []string { e.Set("HTTP_PROXY", "odd://u:S3CRET@x"); return nil },
			1, "proxies", []string{"HTTP_PROXY"}},
		{"bad size", func(e *harness.Env) []string { return []string{"--cache-size", "much"} }, 1,
			"cache", []string{"--cache-size"}},
	}
	for _, tt := range tests {
		e := harness.New(t, harness.User)
		got, r := doctor(t, e, tt.code, tt.set(e)...)
		for _, word := range tt.says {
			if !strings.Contains(got.text(tt.check), word) {
				t.Errorf("%s: %s says %q, want %q", tt.name, tt.check, got.text(tt.check), word)
			}
		}
		if strings.Contains(r.Stdout+r.Stderr, "S3CRET") {
			t.Errorf("%s: a secret is shown: %v", tt.name, r)
		}
	}
}

// TestDoctorStale: a mount whose process died is a warning that says how to clear it.
func TestDoctorStale(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	m := e.Mount(e.Push(harness.Fixture(t, "basic")))
	m.Kill9()
	if got, _ := doctor(t, e, 0); !strings.Contains(got.text("mounts"), m.Dir) ||
		!strings.Contains(got.text("mounts"), "pfmount umount") {
		t.Errorf("got %q", got.text("mounts"))
	}
	e.Run("umount", m.Dir).Want(t, 0)
}

// TestDoctorLocal: of images on disk, the steps that apply.
func TestDoctorLocal(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	want := []string{"reference ok", "manifest ok", "signature warn", "top-level ok", "blob ok", "total ok"}
	e.Set("PF_STORE", e.CopyFixture("store"))
	for _, ref := range []string{
		"oci-layout:" + e.CopyFixture("layout") + ":basic", "file://" + e.CopyFixture("file-registry"),
		"store:16f7f7845ae284e3d0c73040710687dc78c5e1e950b6272d8454ed1f4599711e",
	} {
		if strings.HasPrefix(ref, "store:") {
			want[2] = "signature skipped" // there is none to check
		}
		if got, r := doctor(t, e, 0, ref); !slices.Equal(got.outcomes(), want) {
			t.Errorf("%s: got %q, want %q: %v", ref, got.outcomes(), want, r)
		}
	}
	want = []string{"reference ok", "manifest fail", "signature skipped", "top-level skipped", "blob skipped"}
	if got, _ := doctor(t, e, 5, "file:///none"); !slices.Equal(got.outcomes(), want) {
		t.Errorf("no such folder: got %q, want %q", got.outcomes(), want)
	}
	if entries, _ := os.ReadDir(e.CacheDir()); len(entries) > 0 {
		t.Errorf("the cache was filled: %v", entries)
	}
}

// TestDoctorInterrupted: Ctrl-C ends it at once, and a registry that says nothing ends it in time.
func TestDoctorInterrupted(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref := e.Push(harness.Fixture(t, "basic"))
	hold := faultreg.NewHold()
	e.Registry().On(faultreg.Match{Kind: faultreg.Manifest}, hold.Fault())
	p := e.Start("doctor", ref)
	harness.Eventually(t, 30*time.Second, "request", func() bool { return hold.Waiting() > 0 })
	p.Signal(syscall.SIGINT)
	if r := p.Wait(30 * time.Second); r.Code != 130 {
		t.Errorf("want exit 130: %v", r)
	}
	if got, r := doctor(t, e, 5, "--stall-timeout", "1s",
		ref); !strings.Contains(got.text("manifest"), "no byte arrived in time") {
		t.Errorf("got %v", r)
	}
}
