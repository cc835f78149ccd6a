package pfimg

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// modelEntry is an entry of a random tree.
type modelEntry struct {
	path, target string
	kind         Kind
	mode         uint32
	size         int
}

func (e modelEntry) json() string {
	switch e.kind {
	case Dir:
		return fmt.Sprintf(`"path":%s,"kind":"dir","mode":"%04o"`, text(e.path), e.mode)
	case Symlink:
		return ln(e.path, e.target)
	}
	return fmt.Sprintf(`"path":%s,"mode":"%04o","size":%d,"blob":"%s"`, text(e.path), e.mode,
		e.size, hash(strings.Repeat("x", e.size)))
}

// model is what the rules say of a tree, in the plainest way: a map from path to what is there.
func model(entries []modelEntry) (shown map[string]modelEntry, warnings int, ok bool) {
	shown = make(map[string]modelEntry)
	for _, e := range entries {
		parts := strings.Split(e.path, "/")
		for i := 1; i < len(parts); i++ {
			parent := strings.Join(parts[:i], "/")
			switch old, there := shown[parent]; {
			case !there:
				shown[parent] = modelEntry{path: parent, kind: Dir, mode: 0o755}
			case old.kind != Dir:
				return nil, 0, false
			}
		}
		if old, there := shown[e.path]; there {
			if (old.kind == Dir) != (e.kind == Dir) {
				return nil, 0, false
			}
			if e.kind != Dir {
				warnings++
			}
		}
		shown[e.path] = e
	}
	return shown, warnings, true
}

// modelLines describes a model as list does.
func modelLines(shown map[string]modelEntry) map[string]string {
	lines := make(map[string]string)
	for path, e := range shown {
		switch e.kind {
		case Dir:
			subdirs := 0
			for other, o := range shown {
				if rest, below := strings.CutPrefix(other, path+"/"); below && o.kind == Dir &&
					!strings.Contains(rest, "/") {
					subdirs++
				}
			}
			lines[path] = fmt.Sprintf("dir %04o nlink %d", e.mode&permBits, 2+subdirs)
		case Symlink:
			lines[path] = fmt.Sprintf("symlink 0777 %d -> %s", len(e.target), e.target)
		default:
			lines[path] = fmt.Sprintf("file %04o %d", e.mode&permBits, e.size)
		}
	}
	return lines
}

// randomTree makes entries over few names, so that clashes are common.
func randomTree(rng *rand.Rand) []modelEntry {
	names := []string{"a", "b", "ab", "a b", "é", "A", ".x", "zz"}
	entries := make([]modelEntry, rng.IntN(12))
	for i := range entries {
		parts := make([]string, 1+rng.IntN(3))
		for j := range parts {
			parts[j] = names[rng.IntN(len(names))]
		}
		e := modelEntry{path: strings.Join(parts, "/"), mode: uint32(rng.IntN(0o10000)),
			size: rng.IntN(4), kind: Kind(1 + rng.IntN(3))}
		if e.kind == Symlink {
			e.target = "t" + strings.Repeat("/", rng.IntN(3))
		}
		entries[i] = e
	}
	return entries
}

func TestBuildAgainstModel(t *testing.T) {
	t.Parallel()
	refused, warned := 0, 0
	for seed := range uint64(4000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		entries := randomTree(rng)
		var insides []string
		for _, e := range entries {
			insides = append(insides, e.json())
		}
		x, err := buildFrom(treeOf(insides...), emptyTable, 1000)
		shown, warnings, ok := model(entries)
		if !ok {
			refused++
			if !errors.Is(err, ErrIntegrity) {
				t.Fatalf("seed %d: got %v, want %v for %v", seed, err, ErrIntegrity, insides)
			}
			continue
		}
		if err != nil {
			t.Fatalf("seed %d: %v for %v", seed, err, insides)
		}
		warned += min(warnings, 1)
		if got, want := list(t, x, "world/fs"), modelLines(shown); !maps.Equal(got, want) ||
			len(x.Warnings()) != warnings {
			t.Fatalf("seed %d: got %v and %q, want %v and %d warnings", seed, got, x.Warnings(),
				want, warnings)
		}
	}
	if refused < 100 || refused > 3900 || warned < 100 {
		t.Errorf("of 4000 trees %d were refused and %d warned: the trees test nothing", refused, warned)
	}
}

// Rows follow from the names, not from the order of the entries.
func TestRowsDoNotDependOnTheOrder(t *testing.T) {
	entries := []string{dir("d"), file("d/a", 1), file("d/b", 2), dir("d/e"), file("d/e/x", 3),
		file("d-e", 1), ln("l", "d"), file("z", 0), file("B", 2), file("é", 1)}
	want := rowsOf(t, mustBuild(t, treeOf(entries...), emptyTable))
	for seed := range uint64(50) {
		shuffled := slices.Clone(entries)
		rng := rand.New(rand.NewPCG(seed, 2))
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		got := rowsOf(t, mustBuild(t, treeOf(shuffled...), emptyTable))
		if !maps.Equal(got, want) {
			t.Fatalf("seed %d: got %v, want %v", seed, got, want)
		}
	}
}

// rowsOf maps the paths of an image to their rows and what is there, but for blobs/, which holds
// the tree's own digest.
func rowsOf(t *testing.T, x *Index) map[string]string {
	t.Helper()
	rows := make(map[string]string)
	for path, line := range list(t, x, "") {
		if row := mustFind(t, x, path); !strings.HasPrefix(path, "blobs/sha256/") && path != sigName {
			rows[path] = fmt.Sprint(row, " ", strings.Split(line, " nlink")[0])
		}
	}
	return rows
}
