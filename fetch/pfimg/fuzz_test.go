package pfimg

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/pfmount/pfmount/sign"
)

// known fails unless the error is of a kind that hostile bytes may have.
func known(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrIntegrity) && !errors.Is(err, ErrUnsupported) {
		t.Fatalf("error of no known kind: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, tag := range tags {
		f.Add(read(f, tag, "manifest.json"))
	}
	f.Add([]byte(minimalManifest()))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(sign.Unverified(data, nil, "fuzz"))
		if err != nil {
			known(t, err)
			return
		}
		for _, top := range m.TopLevel() {
			if d, err := ParseDigest(top.Digest.String()); err != nil || d != top.Digest {
				t.Fatalf("%s: %v", top.Path, err)
			}
		}
	})
}

// checkIndex walks a whole index and holds its sums against what it shows.
func checkIndex(t *testing.T, x *Index) {
	t.Helper()
	s := x.Stats()
	if all := list(t, x, ""); len(all) != s.Rows-1 {
		t.Fatalf("%d names below the root, %d rows", len(all), s.Rows)
	}
	blobs, sum := 0, int64(0)
	for d, size := range x.Blobs() {
		blobs++
		sum += max(size, 0)
		row, ok := x.Find("blobs/sha256/" + d.Hex()[:2] + "/" + d.Hex())
		if got, n, there := x.Blob(row); !ok || !there || got != d || n != size {
			t.Fatalf("%s is not in blobs/: %v %v %s %d", d, ok, there, got, n)
		}
	}
	if blobs != s.Blobs || sum != s.Bytes {
		t.Fatalf("%d blobs of %d bytes, stats say %+v", blobs, sum, s)
	}
}

// pieces cuts the list of a fixture into at most 16 documents of n elements. The fuzzer minimizes
// what it finds, for up to a minute each: with seeds of 25 KB it made 9 executions in 20 seconds.
func pieces(f *testing.F, data []byte, list string, n int) (seeds [][]byte) {
	f.Helper()
	var whole map[string]json.RawMessage
	var elements []json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		f.Fatal(err)
	}
	if err := json.Unmarshal(whole[list], &elements); err != nil {
		f.Fatal(err)
	}
	for chunk := range slices.Chunk(elements, n) {
		if len(seeds) == 16 {
			break
		}
		part, err := json.Marshal(chunk)
		if err != nil {
			f.Fatal(err)
		}
		whole[list] = part
		seed, err := json.Marshal(whole)
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, seed)
	}
	return seeds
}

func FuzzTree(f *testing.F) {
	for _, tag := range tags {
		for _, seed := range pieces(f, read(f, tag, "tree.json"), "entries", 2) {
			f.Add(seed)
		}
	}
	f.Add([]byte(treeOf()))
	f.Add([]byte(treeOf(file("a/b", 1), file("a/b", 2), ln("l", "x"), dir("d"),
		`"path":"old","size":3,"blob":"`+hash("xxx").String()+`"`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := buildFrom(string(data), emptyTable, 200)
		if err != nil {
			known(t, err)
			return
		}
		checkIndex(t, x)
		root := mustFind(t, x, "world/fs")
		for path := range list(t, x, "world/fs") {
			if why := checkPath([]byte(path)); why != "" {
				t.Fatalf("%q is shown: %s", path, why)
			}
			row := mustFind(t, x, "world/fs/"+path)
			for range MaxDepth + 1 {
				if row = x.Parent(row); row == root {
					break
				}
			}
			if row != root {
				t.Fatalf("%q is not below world/fs", path)
			}
		}
	})
}

func FuzzPages(f *testing.F) {
	for _, tag := range []string{"pages", "minimal"} {
		for _, seed := range pieces(f, read(f, tag, "pages.json"), "pages", 1) {
			f.Add(seed)
		}
	}
	f.Add([]byte(emptyTable))
	f.Add([]byte(tableOf(`"page_size_bytes":7`, []string{page(0, "a", "b")}, `"note":[{}]`)))
	f.Add([]byte(tableOf(`"dtype":"f32","n_layers":1,"n_heads":1,"page_size_tokens":1`,
		[]string{page(7, "a", "b")}, `"head_dim":4294967296`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := buildFrom(treeOf(file("f", 1)), string(data), 200)
		if err != nil {
			known(t, err)
			return
		}
		checkIndex(t, x)
		if got := len(list(t, x, "cache/pages")); got != 2*x.Stats().Pages {
			t.Fatalf("%d names in cache/pages for %d pages", got, x.Stats().Pages)
		}
	})
}
