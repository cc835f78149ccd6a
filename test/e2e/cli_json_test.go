package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
)

// shape describes a JSON value: one line for each name, with the type of what stands there. Lists show
// their first element. Strings that are times, digests or folders say so.
func shape(t *testing.T, text string) string {
	t.Helper()
	var v any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("no JSON: %v: %s", err, text)
	}
	if d.More() {
		t.Errorf("more than one JSON value: %s", text)
	}
	var b strings.Builder
	describe(&b, "", v)
	return strings.TrimSpace(b.String())
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func describe(b *strings.Builder, name string, v any) {
	kind := ""
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			describe(b, strings.TrimPrefix(name+"."+key, "."), v[key])
		}
		return
	case []any:
		if len(v) > 0 {
			describe(b, name+"[]", v[0])
			return
		}
		kind = "empty list"
	case json.Number:
		kind = "integer"
		if _, err := v.Int64(); err != nil {
			kind = "number"
		}
	case string:
		kind = "string"
		if _, err := time.Parse(time.RFC3339Nano, v); err == nil {
			kind = "time"
		} else if digestForm.MatchString(v) {
			kind = "digest"
		}
	default:
		kind = fmt.Sprintf("%T", v)
	}
	fmt.Fprintf(b, "%s %s\n", name, kind)
}

// golden fails the test unless a command's JSON has this shape.
func golden(t *testing.T, r harness.Result, want string) {
	t.Helper()
	if got := shape(t, r.Stdout); got != strings.TrimSpace(want) {
		t.Errorf("the JSON of %q has the shape\n%s\nwant\n%s", r.Args[1:], got, want)
	}
}

const inspectShape = `agent.fingerprint string
agent.kind string
agent.version string
cid digest
created_at time
decoded_bytes integer
dirs integer
files integer
layers integer
manifest_digest digest
missing integer
pages integer
parents[] digest
reference string
schema integer
signature.algorithm string
signature.key string
symlinks integer
wire_bytes integer`

// TestInspectJSON: shape and values of `inspect --json`.
func TestInspectJSON(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Fixture(t, "fork-a")
	ref := e.Push(img)
	r := e.Run("inspect", "--json", ref).Want(t, 0)
	golden(t, r, inspectShape)
	var got struct {
		Schema                                        int
		Reference, CID                                string
		ManifestDigest                                string `json:"manifest_digest"`
		Signature                                     struct{ Algorithm, Key string }
		Files, Dirs, Symlinks, Pages, Layers, Missing int
		WireBytes                                     int64 `json:"wire_bytes"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &got); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, w := range harness.Want(t, "fork-a") {
		count[w.Kind]++
	}
	wire := img.Config().Size
	for _, l := range img.Layers {
		wire += l.Size
	}
	if got.Schema != 1 || got.Reference != ref || got.CID != "sha256:"+img.CID() ||
		got.ManifestDigest != img.ManifestDigest() ||
		got.Signature.Algorithm != "hmac-sha256" || got.Signature.Key != "default" ||
		got.Missing != 0 || got.Pages != 0 {
		t.Errorf("inspect says %+v", got)
	}
	if got.Files != count["file"] || got.Symlinks != count["symlink"] ||
		got.Layers != len(img.Layers) || got.WireBytes != wire {
		t.Errorf("inspect says %+v, want %v, %d layers, %d bytes", got, count, len(img.Layers), wire)
	}
	keyed := e.Push(harness.Fixture(t, "keyed"))
	e.Set("PF_OCI_REG_SIGN_KEY", "bike-team-key")
	if r := e.Run("inspect", "--json", keyed).Want(t,
		0); !regexp.MustCompile(`"key":\s*"given"`).MatchString(r.Stdout) {
		t.Errorf("the key given is not told: %v", r)
	}
	e.Unset("PF_OCI_REG_SIGN_KEY")
	img.Drop(img.Digest("world/env.json"))
	if r := e.Run("inspect", "--json", e.Serve(img)).Want(t,
		0); !regexp.MustCompile(`"missing":\s*1\b`).MatchString(r.Stdout) {
		t.Errorf("the missing layer is not told: %v", r)
	}
}

const statusShape = `mounts[].ahead_hits integer
mounts[].ahead_wasted integer
mounts[].cache_hits integer
mounts[].cache_misses integer
mounts[].fetched_bytes integer
mounts[].goroutines integer
mounts[].image string
mounts[].last_errors empty list
mounts[].manifest_digest digest
mounts[].mountpoint string
mounts[].offline bool
mounts[].pid integer
mounts[].requests integer
mounts[].shown integer
mounts[].stale bool
mounts[].started time
mounts[].total_bytes integer
mounts[].waited_reads integer
schema integer`

// TestStatusJSON: shape and values of `status --json` for a mount, an offline one, a stale one, and none.
func TestStatusJSON(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		img := harness.Fixture(t, "basic")
		m := e.Mount(e.Push(img))
		golden(t, e.Run("status", "--json", m.Dir).Want(t, 0), statusShape)
		before := m.Status()
		m.Compare("world/fs", harness.Want(t, "basic"))
		s := m.Status()
		if s.Mountpoint != m.Dir || s.Image != m.Ref || s.ManifestDigest != img.ManifestDigest() ||
			s.PID != m.PID || s.Stale {
			t.Errorf("status %+v", s)
		}
		if s.FetchedBytes <= before.FetchedBytes || s.CacheMisses <= before.CacheMisses ||
			s.FetchedBytes > s.TotalBytes || s.Goroutines == 0 {
			t.Errorf("status before %+v, after reading all %+v", before, s)
		}
		total := int64(len(img.OCIManifest())) + img.Config().Size
		for _, l := range img.Layers {
			total += l.Size
		}
		if s.TotalBytes != total {
			t.Errorf("the image has %d bytes with its manifest, status says %d", total, s.TotalBytes)
		}
		if r := e.Run("status").Want(t, 0); !strings.Contains(r.Stdout, m.Dir) ||
			!strings.Contains(r.Stdout, m.Ref) {
			t.Errorf("status lists %v", r)
		}
		e.Run("status", e.MakeDir("none")).Want(t, 6, "not a mount")
		e.Run("status", m.Dir, "x").Want(t, 1, "x")
		m.Kill9()
		if s := m.Status(); !s.Stale || s.Mountpoint != m.Dir || s.Image != m.Ref {
			t.Errorf("status of a stale mount %+v", s)
		}
		e.Run("umount", m.Dir).Want(t, 0)
		if lines := harness.MountLines(t, m.Dir); lines != nil {
			t.Errorf("the stale mount is still there: %v", lines)
		}
	})
}

const verifyShape = `bad empty list
blobs integer
bytes integer
cid digest
created_at time
key string
manifest_digest digest
reference string
schema integer`

// TestVerifyJSON: shape and values of `verify --json`, sound, damaged, and stopped after the signature;
// the cache is left alone.
func TestVerifyJSON(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Fixture(t, "basic")
	r := e.Run("verify", "--json", e.Push(img)).Want(t, 0)
	golden(t, r, verifyShape)
	var good, bad struct {
		Blobs int
		Bytes int64
		Bad   []struct{ Digest, Error string }
	}
	if err := json.Unmarshal([]byte(r.Stdout), &good); err != nil ||
		good.Blobs != len(img.Layers)-1 || good.Bytes == 0 {
		t.Errorf("verify says %+v (%v), the image has %d layers", good, err, len(img.Layers))
	}
	if entries, _ := filepath.Glob(e.CacheDir() + "/blobs/*/*"); len(entries) > 0 {
		t.Errorf("verify filled the cache with %d blobs", len(entries))
	}
	golden(t, e.Run("verify", "--manifest", "--json", e.Push(img)).Want(t, 0), verifyShape)

	gone, spoiled := img.Digest("world/env.json"), img.Digest("trace/messages.jsonl")
	img.Layer(spoiled).SetWire([]byte("no zstd"))
	img.Drop(gone)
	r = e.Run("verify", "--json", e.Serve(img)).Want(t, 4)
	golden(t, r, strings.Replace(verifyShape, "bad empty list", "bad[].digest digest\nbad[].error string", 1))
	if err := json.Unmarshal([]byte(r.Stdout), &bad); err != nil || len(bad.Bad) != 2 {
		t.Fatalf("verify says %+v, %v", bad, err)
	}
	for _, b := range bad.Bad {
		if b.Digest != gone && b.Digest != spoiled || b.Error == "" {
			t.Errorf("bad: %+v", b)
		}
	}
	if r := e.Run("verify", e.Serve(img)).Want(t, 4); !strings.Contains(r.Stdout, gone) ||
		!strings.Contains(r.Stdout, spoiled) {
		t.Errorf("not both are named: %v", r)
	}
	e.Run("verify", "--manifest", e.Serve(img)).Want(t, 0)
}

const cacheInfoShape = `blobs integer
dir string
file_system string
free_bytes integer
limit_bytes integer
newest time
oldest time
partial integer
schema integer
used_bytes integer`

// TestCacheInfoJSON: shape and values of `cache info --json`.
func TestCacheInfoJSON(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Fixture(t, "basic")
	e.Run("warm", e.Push(img)).Want(t, 0)
	r := e.Run("cache", "info", "--json", "--cache-size", "1GiB").Want(t, 0)
	golden(t, r, cacheInfoShape)
	var got struct {
		Dir        string
		Blobs      int
		UsedBytes  int64 `json:"used_bytes"`
		LimitBytes int64 `json:"limit_bytes"`
		FreeBytes  int64 `json:"free_bytes"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &got); err != nil {
		t.Fatal(err)
	}
	var used int64
	blobs := 0
	filepath.Walk(e.CacheDir(), func(path string, st os.FileInfo, err error) error {
		if err == nil && st.Mode().IsRegular() {
			used += st.Size()
			if strings.Contains(path, "/blobs/") && len(filepath.Base(path)) == 64 {
				blobs++
			}
		}
		return err
	})
	if got.Dir != e.CacheDir() || got.LimitBytes != 1<<30 || got.FreeBytes <= 0 ||
		got.UsedBytes < used || got.Blobs != blobs || blobs < len(img.Layers)-1 {
		t.Errorf("cache info says %+v; %d blobs, %d bytes are there", got, blobs, used)
	}
}
