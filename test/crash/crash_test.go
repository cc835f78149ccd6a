package crash

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// fromEnv is a number that a soak may set.
func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// source is an image of blobs of every kind: none, tiny, some blocks, and three that the cache
// checks by chunks.
func source() imgbuild.Spec {
	sizes := []int64{0, 1, 500, 4096, 4097, 20_000, 70_000, 150_000}
	return imgbuild.Spec{
		Seq: imgbuild.Folders(5, 40, func(n int) imgbuild.Content {
			return imgbuild.Noise{Seed: uint64(n), Len: sizes[n%len(sizes)]}
		}),
		Entries: []imgbuild.Entry{
			imgbuild.File("large-1", "0644", imgbuild.Pattern{Seed: 1, Len: 9 << 20}),
			imgbuild.File("large-2", "0644", imgbuild.Pattern{Seed: 2, Len: 9<<20 + 1}),
			imgbuild.File("large-3", "0644", imgbuild.Noise{Seed: 3, Len: 12 << 20}),
		},
	}
}

const (
	cacheSize = 40 << 20 // about what source takes, so some rounds evict
	sizeFlag  = "--cache-size=40MiB"
	sizeTo    = "--to=40MiB"
)

// rig is an Env with the source in its registry and a cache on a disk of its own.
type rig struct {
	*harness.Env
	disk  *harness.Disk
	ref   string
	cache string
	want  []imgbuild.Want
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := imageRig(t)
	r.Crash()
	r.disk = r.Ext4("disk", 160<<20, "commit=1")
	r.cache = filepath.Join(r.disk.Dir, "cache")
	return r
}

// imageRig is a rig without a disk yet.
func imageRig(t *testing.T) *rig {
	t.Helper()
	e := harness.New(t, "")
	spec := source()
	want, err := spec.Want()
	if err != nil {
		t.Fatal(err)
	}
	return &rig{Env: e, ref: e.Push(harness.Build(t, spec)), want: want}
}

// busy fills the cache in every way at once, until the processes are killed: commands and a mount
// that is read.
func (r *rig) busy(t *testing.T, rnd *rand.Rand) (kill func()) {
	t.Helper()
	flags := []string{sizeFlag, "--cache-dir=" + r.cache, "--cache-min-free=0",
		"--cache-verify=" + []string{"first", "always"}[rnd.IntN(2)]}
	m := r.Mount(r.ref, flags...)
	reader := r.Command("bash", "-c",
		`while :; do tar cf - -C "$1" world | tail -c 1 >/dev/null; done`, "bash", m.Dir)
	warm := r.Command("bash", "-c", `while :; do "$@" 2>/dev/null; done`, "bash", r.Bin, "warm",
		sizeFlag, "--cache-dir="+r.cache, "--cache-min-free=0", r.ref)
	prune := r.Command("bash", "-c", `while :; do sleep 0.1; "$@" >/dev/null 2>&1; done`, "bash",
		r.Bin, "cache", "prune", "--cache-dir="+r.cache, "--to=20MB")
	return func() {
		t.Helper()
		for _, p := range []*harness.Process{warm, prune, reader} {
			unix.Kill(-p.Cmd.Process.Pid, unix.SIGKILL)
		}
		for _, pid := range harness.Pids(r.Bin) {
			unix.Kill(pid, unix.SIGKILL)
		}
		for _, p := range []*harness.Process{warm, prune, reader} {
			p.Kill()
		}
		gone := func() bool { return len(harness.Pids(r.Bin)) == 0 }
		harness.Eventually(t, time.Minute, "end of the killed processes", gone)
		if err := unix.Unmount(m.Dir, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
}

// sound mounts, compares every byte with the source, and audits the folder that is left.
func (r *rig) sound(t *testing.T) {
	t.Helper()
	m := r.Mount(r.ref, sizeFlag, "--cache-dir="+r.cache, "--cache-min-free=0")
	m.Compare("world/fs", r.want)
	harness.Eventually(t, time.Minute, "end of leftovers", func() bool {
		names, err := os.ReadDir(filepath.Join(r.cache, "tmp"))
		return err == nil && len(names) == 0
	})
	m.Unmount()
	if a := r.audit(t); len(a.Torn) > 0 {
		// What was not read again, since it was evicted from the kernel's sight by its own size,
		// may be torn still.
		r.Run("cache", "verify", "--cache-dir="+r.cache).Want(t, 7)
		if a := r.audit(t); len(a.Torn) > 0 {
			t.Errorf("torn after verify: %v", a.Torn)
		}
	}
}

// audit is Audit and the bounds of the quota.
func (r *rig) audit(t *testing.T) Report {
	t.Helper()
	a, err := Audit(r.cache)
	if err != nil {
		t.Fatal(err)
	}
	if a.Used > cacheSize || a.Usage >= 0 && a.Usage < a.Used {
		t.Errorf("%d bytes on disk, limit %d, usage %d", a.Used, cacheSize, a.Usage)
	}
	return a
}

// seeded gives rounds and randomness, and says how to repeat them.
func seeded(t *testing.T, otherwise int) (rounds int, rnd *rand.Rand) {
	t.Helper()
	rounds = fromEnv(t, "PFMOUNT_CRASH_ROUNDS", otherwise)
	seed := fromEnv(t, "PFMOUNT_CRASH_SEED", 1)
	if seed == 0 {
		seed = rand.IntN(1e9)
	}
	t.Logf("PFMOUNT_CRASH_SEED=%d PFMOUNT_CRASH_ROUNDS=%d", seed, rounds)
	return rounds, rand.New(rand.NewPCG(uint64(seed), 0))
}

// TestKill9: daemons and commands die at random instants. The cache that they leave has whole blobs
// only, and the next mount shows the source.
func TestKill9(t *testing.T) {
	rounds, rnd := seeded(t, 4)
	r := newRig(t)
	partial, unknown := 0, 0
	round := 0
	for ; round < rounds || partial == 0 && round < 80; round++ {
		kill := r.busy(t, rnd)
		time.Sleep(time.Duration(rnd.IntN(900)) * time.Millisecond)
		kill()
		a := r.audit(t)
		if len(a.Torn) > 0 {
			t.Errorf("round %d: %+v", round, a)
		}
		if a.Usage < 0 { // killed between the number and its time: the next count writes both
			unknown++
			r.Run("cache", "prune", "--cache-dir="+r.cache, sizeTo).Want(t, 0)
			if a := r.audit(t); a.Usage < 0 {
				t.Errorf("round %d: prune left %+v", round, a)
			}
		}
		partial += a.Partial
		if round%4 == 3 {
			r.sound(t)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	if partial == 0 {
		t.Error("no fill was hit")
	}
	t.Logf("%d rounds, %d fills hit, %d numbers without their time", round, partial, unknown)
}

// TestPowerCut: the power fails at random instants, so what was not synced is gone and names may
// have lost their content. Nothing wrong is served, whatever the mode of verification; the quota
// holds; leftovers go.
func TestPowerCut(t *testing.T) {
	rounds, rnd := seeded(t, 4)
	r := newRig(t)
	torn, kept := 0, 0
	round := 0
	for ; round < rounds || (torn == 0 || kept == 0) && round < 40; round++ {
		kill := r.busy(t, rnd)
		stop := time.Now().Add(time.Duration(200+rnd.IntN(1800)) * time.Millisecond)
		for time.Now().Before(stop) { // others sync, too: that commits names whose content is still in memory
			time.Sleep(time.Duration(rnd.IntN(150)) * time.Millisecond)
			beat(t, r.disk.Dir)
		}
		r.disk.Cut()
		kill()
		options := []string{"commit=1", "commit=1,nodelalloc", "commit=1,data=writeback"}[rnd.IntN(3)]
		r.disk.Restore(options)
		if _, err := os.Stat(r.cache + "/usage"); err == nil {
			a := r.audit(t)
			torn, kept = torn+len(a.Torn), kept+a.Blobs-len(a.Torn)
		}
		r.sound(t)
		if t.Failed() {
			t.Fatalf("round %d, then %s", round, options)
		}
	}
	t.Logf("%d cuts: %d names lost their content, %d kept it", round, torn, kept)
	if torn == 0 || kept == 0 {
		t.Error("the cuts were no test")
	}
}

// beat is what any other program does: it writes a file and syncs it.
func beat(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "beat"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(time.Now().String()); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
