package pfimg

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// expected is what world/fs must show, as recorded from the captured tree itself.
func expected(t *testing.T, tag string) map[string]string {
	t.Helper()
	var entries []struct {
		Path, Kind, Mode, Target string
		Size                     int64
	}
	if err := json.Unmarshal(read(t, tag, "expected.json"), &entries); err != nil {
		t.Fatal(err)
	}
	subdirs := make(map[string]int)
	for _, e := range entries {
		if at := strings.LastIndexByte(e.Path, '/'); e.Kind == "dir" && at >= 0 {
			subdirs[e.Path[:at]]++
		}
	}
	want := make(map[string]string)
	for _, e := range entries {
		switch e.Kind {
		case "dir":
			want[e.Path] = fmt.Sprintf("dir %s nlink %d", e.Mode, 2+subdirs[e.Path])
		case "symlink":
			want[e.Path] = fmt.Sprintf("symlink 0777 %d -> %s", len(e.Target), e.Target)
		default:
			want[e.Path] = fmt.Sprintf("file %s %d", e.Mode, e.Size)
		}
	}
	return want
}

func wantMap(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if got[path] != want[path] {
			t.Errorf("%q: got %q, want %q", path, got[path], want[path])
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[path]; !ok {
			t.Errorf("%q: %q should not be there", path, got[path])
		}
	}
}

func TestBuildFixtures(t *testing.T) {
	for _, tag := range tags {
		t.Run(tag, func(t *testing.T) {
			m, open := loadFixture(t, tag)
			x, err := Build(context.Background(), m, open)
			if err != nil {
				t.Fatal(err)
			}
			want := expected(t, tag)
			wantMap(t, list(t, x, "world/fs"), want)
			kinds := make(map[string]int)
			for _, w := range want {
				kinds[strings.Fields(w)[0]]++
			}
			s := x.Stats()
			if s.Files != kinds["file"] || s.Dirs != kinds["dir"] || s.Symlinks != kinds["symlink"] {
				t.Errorf("stats %+v, want %v", s, kinds)
			}
			if all := list(t, x, ""); len(all) != s.Rows-1 {
				t.Errorf("%d names below the root, stats say %d rows", len(all), s.Rows)
			}
			if len(x.Warnings()) != 0 || !x.Created().Equal(m.Created) {
				t.Errorf("warnings %q, created %v", x.Warnings(), x.Created())
			}
		})
	}
}

// The layout of a mount that has no files.
func TestLayout(t *testing.T) {
	x, err := buildFrom(treeOf(), emptyTable, 10)
	if err != nil {
		t.Fatal(err)
	}
	m := testManifest(treeOf(), emptyTable)
	want := map[string]string{
		"manifest.json": "file 0444 2", "manifest.json.sig": "file 0444 5",
		"world": "dir 0755 nlink 3", "world/fs": "dir 0755 nlink 2",
		"world/env.json": "file 0444 -1", "world/procs.json": "file 0444 -1",
		"trace": "dir 0755 nlink 2", "trace/messages.jsonl": "file 0444 -1",
		"effects": "dir 0755 nlink 2", "effects/ledger.jsonl": "file 0444 -1",
		"model": "dir 0755 nlink 2", "model/base": "file 0444 -1", "model/diff.json": "file 0444 -1",
		"cache": "dir 0755 nlink 3", "cache/manifest.json": fmt.Sprintf("file 0444 %d",
			len(emptyTable)), "cache/pages": "dir 0755 nlink 2",
		"blobs": "dir 0755 nlink 3",
	}
	folders := make(map[string]bool)
	for _, top := range m.TopLevel() {
		size := -1
		switch top.Digest {
		case m.World.FS:
			size = len(treeOf())
		case m.Cache.Manifest:
			size = len(emptyTable)
		}
		folder := "blobs/sha256/" + top.Digest.Hex()[:2]
		folders[folder] = true
		want[folder] = "dir 0755 nlink 2"
		want[folder+"/"+top.Digest.Hex()] = fmt.Sprintf("file 0444 %d", size)
		if row, ok := x.Find(top.Path); !ok {
			t.Errorf("%s is not there", top.Path)
		} else if d, _, ok := x.Blob(row); ok != (top.Path != "world/fs") || ok && d != top.Digest {
			t.Errorf("%s: blob %s %v, want %s", top.Path, d, ok, top.Digest)
		}
	}
	want["blobs/sha256"] = fmt.Sprintf("dir 0755 nlink %d", 2+len(folders))
	wantMap(t, list(t, x, ""), want)
	if _, ok := x.Attr(Row(x.Stats().Rows + 1)); ok {
		t.Error("there is a row beyond the last")
	}
}

func TestInline(t *testing.T) {
	for _, signed := range []bool{true, false} {
		m := testManifest(treeOf(), emptyTable)
		if !signed {
			m.Signature = nil
		}
		x, err := Build(context.Background(), m, serve([]byte(treeOf()), []byte(emptyTable)))
		if err != nil {
			t.Fatal(err)
		}
		row, _ := x.Find("manifest.json")
		if got, ok := x.Inline(row); !ok || string(got) != "{}" {
			t.Errorf("manifest.json: %q %v", got, ok)
		}
		row, ok := x.Find("manifest.json.sig")
		if got, there := x.Inline(row); ok != signed || there != signed || signed && string(got) != "{sig}" {
			t.Errorf("signed %v: manifest.json.sig %v: %q %v", signed, ok, got, there)
		}
		for _, path := range []string{"", "world", "model/base", "blobs/sha256",
			"blobs/sha256/" + hash("env").Hex()[:2]} {
			row, ok := x.Find(path)
			if _, inline := x.Inline(row); !ok || inline {
				t.Errorf("%q: found %v, inline %v", path, ok, inline)
			}
		}
	}
}

// TestRowsDoNotDependOnTheSignature: rows are the same at every mount, with and without a signature.
func TestRowsDoNotDependOnTheSignature(t *testing.T) {
	m, open := loadFixture(t, "basic")
	signed, err := Build(context.Background(), m, open)
	if err != nil {
		t.Fatal(err)
	}
	m.Signature = nil
	bare, err := Build(context.Background(), m, open)
	if err != nil {
		t.Fatal(err)
	}
	for path := range list(t, bare, "") {
		one, _ := signed.Find(path)
		other, _ := bare.Find(path)
		if one != other {
			t.Errorf("%q: row %d signed, %d not", path, one, other)
		}
	}
	if one, other := signed.Stats().Rows, bare.Stats().Rows; one != other+1 {
		t.Errorf("%d rows signed, %d not", one, other)
	}
}

// The blobs of an image, in order, are what the reference pushed: each once.
func TestBlobsInImageOrder(t *testing.T) {
	m, open := loadFixture(t, "pages")
	x, err := Build(context.Background(), m, open)
	if err != nil {
		t.Fatal(err)
	}
	var got []Digest
	var sum int64
	for d, size := range x.Blobs() {
		got = append(got, d)
		sum += max(size, 0)
	}
	var want []Digest
	add := func(d Digest) {
		if !slices.Contains(want, d) {
			want = append(want, d)
		}
	}
	for _, top := range m.TopLevel() {
		add(top.Digest)
	}
	row, _ := x.Find("world/fs/only.txt")
	d, _, _ := x.Blob(row)
	add(d)
	for ix := range 24 {
		for _, half := range "kv" {
			row, ok := x.Find(fmt.Sprintf("cache/pages/%08d.%c", ix, half))
			d, size, _ := x.Blob(row)
			if !ok || size != 2*16*4*8*2 {
				t.Errorf("page %d %c: %v, size %d", ix, half, ok, size)
			}
			add(d)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d blobs %v, want %d %v", len(got), got, len(want), want)
	}
	if s := x.Stats(); s.Blobs != len(want) || s.Bytes != sum || s.Pages != 24 {
		t.Errorf("stats %+v, want %d blobs, %d bytes, 24 pages", s, len(want), sum)
	}
	for range x.Blobs() {
		break
	}
}
