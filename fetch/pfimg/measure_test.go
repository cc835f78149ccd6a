package pfimg

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// synthetic is a tree of n files of distinct content in directories of 1,000 at depth 3, as JSON.
func synthetic(n int) string {
	var b strings.Builder
	b.Grow(170 * n)
	b.WriteString(`{"kind":"fs.tree.v1","entries":[`)
	var content [8]byte
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		binary.LittleEndian.PutUint64(content[:], uint64(i))
		fmt.Fprintf(&b, `{"path":"src/pkg-%05d/mod/file_%07d.py","mode":"0644","size":%d,"kind":"file","blob":"sha256:%x"}`,
			i/1000, i, i%100_000, sha256.Sum256(content[:]))
	}
	b.WriteString("]}")
	return b.String()
}

func openText(texts ...string) (*Manifest, Opener) {
	m := testManifest("tree", "table")
	return m, func(_ context.Context, d Digest) (io.ReadCloser, error) {
		if d == m.World.FS {
			return io.NopCloser(strings.NewReader(texts[0])), nil
		}
		return io.NopCloser(strings.NewReader(texts[1])), nil
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// An index has at most 150 bytes a file, all in, and as many Go objects for 100,000 files as for 1,000.
func TestIndexBytesPerFile(t *testing.T) {
	const n = 100_000
	m, open := openText(synthetic(n), emptyTable)
	before := heap()
	x, err := Build(context.Background(), m, open)
	if err != nil {
		t.Fatal(err)
	}
	perFile := float64(heap()-before) / n
	t.Logf("%.1f bytes a file", perFile)
	if s := x.Stats(); s.Files != n {
		t.Fatalf("%d files, want %d", s.Files, n)
	}
	if perFile > 150 {
		t.Errorf("%.1f bytes a file, want at most 150", perFile)
	}
	runtime.KeepAlive(m)
	runtime.KeepAlive(open) // holds the JSON, which is part of before
}

func TestReadersDoNotAllocate(t *testing.T) {
	x := mustBuild(t, strings.Replace(synthetic(3000), `"entries":[`,
		`"entries":[{`+ln("link", "src")+`},`, 1), emptyTable)
	dir := mustFind(t, x, "world/fs/src/pkg-00001/mod")
	file := mustFind(t, x, "world/fs/src/pkg-00001/mod/file_0001500.py")
	link := mustFind(t, x, "world/fs/link")
	hex := hash("env").Hex()
	folder := mustFind(t, x, "blobs/sha256/"+hex[:2])
	tests := []struct {
		name string
		want float64
		op   func() bool
	}{
		{"Lookup", 0, func() bool { r, ok := x.Lookup(dir, "file_0001500.py"); return ok && r == file }},
		{"Lookup of nothing", 0, func() bool { _, ok := x.Lookup(dir, "no"); return !ok }},
		{"Lookup of a blob", 0, func() bool { _, ok := x.Lookup(folder, hex); return ok }},
		{"Attr of a file", 0, func() bool { a, ok := x.Attr(file); return ok && a.Size == 1500 }},
		{"Attr of a directory", 0, func() bool { a, ok := x.Attr(dir); return ok && a.Nlink == 2 }},
		{"Attr of a folder of blobs", 0, func() bool { _, ok := x.Attr(folder); return ok }},
		{"Child", 0, func() bool { r, name, ok := x.Child(dir, 500); return ok && r == file && name == "file_0001500.py" }},
		{"Child of blobs/sha256", 0,
			func() bool { _, name, ok := x.Child(x.algorithm, 0); return ok && len(name) == 2 }},
		{"Child of a folder of blobs", 2,
			func() bool { _, name, ok := x.Child(folder, 0); return ok && len(name) == 64 }},
		{"Blob", 0, func() bool { _, size, ok := x.Blob(file); return ok && size == 1500 }},
		{"Link", 0, func() bool { target, ok := x.Link(link); return ok && target == "src" }},
		{"Parent", 0, func() bool { return x.Parent(file) == dir }},
		{"SetSize", 0, func() bool { x.SetSize(hash("env"), 4); return true }},
	}
	for _, tt := range tests {
		ok := true
		got := testing.AllocsPerRun(100, func() { ok = ok && tt.op() })
		if !ok {
			t.Errorf("%s: a wrong answer", tt.name)
		}
		if got > tt.want {
			t.Errorf("%s: %v allocations, want at most %v", tt.name, got, tt.want)
		}
	}
}

// How Build grows: with the files, and in allocations hardly at all.
func TestBuildAllocations(t *testing.T) {
	count := func(n int) float64 {
		m, open := openText(synthetic(n), emptyTable)
		return testing.AllocsPerRun(1, func() {
			if _, err := Build(context.Background(), m, open); err != nil {
				t.Fatal(err)
			}
		})
	}
	few, many := count(1000), count(50_000)
	t.Logf("%.0f allocations for 1,000 files, %.0f for 50,000", few, many)
	if many > few+500 {
		t.Errorf("%.0f allocations for 1,000 files, %.0f for 50,000: want no object a file", few, many)
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m, open := openText(synthetic(n), emptyTable)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Build(context.Background(), m, open); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/file")
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	x := mustBuild(b, synthetic(100_000), emptyTable)
	rng := rand.New(rand.NewPCG(1, 1))
	dirs, names := make([]Row, 1024), make([]string, 1024)
	for i := range dirs {
		row := mustFind(b, x, fmt.Sprintf("world/fs/src/pkg-%05d/mod", rng.IntN(100)))
		_, names[i], _ = x.Child(row, rng.IntN(1000))
		dirs[i] = row
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok := x.Lookup(dirs[i%1024], names[i%1024]); !ok {
			b.Fatal("not found")
		}
	}
}
