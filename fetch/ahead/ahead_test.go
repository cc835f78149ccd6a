package ahead

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// toy is a tree made of paths; a path that ends in / is an empty directory, one that ends in @ a symlink.
type toy struct {
	parent []pfimg.Row
	names  []string
	kinds  []pfimg.Kind
	kids   [][]pfimg.Row
	paths  map[string]pfimg.Row
}

// grow makes the rows of a tree as the index does: breadth first, the names of a directory sorted.
func grow(paths ...string) *toy {
	t := &toy{paths: map[string]pfimg.Row{}}
	children, kinds := map[string][]string{}, map[string]pfimg.Kind{"": pfimg.Dir}
	for _, p := range paths {
		kind := pfimg.File
		if name, ok := strings.CutSuffix(p, "/"); ok {
			p, kind = name, pfimg.Dir
		} else if name, ok := strings.CutSuffix(p, "@"); ok {
			p, kind = name, pfimg.Symlink
		}
		for p != "" && kinds[p] == 0 {
			dir, name := "", p
			if i := strings.LastIndexByte(p, '/'); i >= 0 {
				dir, name = p[:i], p[i+1:]
			}
			kinds[p], children[dir] = kind, append(children[dir], name)
			p, kind = dir, pfimg.Dir
		}
	}
	t.add(0, "", "", pfimg.Dir)
	t.add(pfimg.Root, "", "", pfimg.Dir)
	order := []string{""}
	for at := 0; at < len(order); at++ {
		dir := order[at]
		slices.Sort(children[dir])
		for _, name := range children[dir] {
			path := strings.TrimPrefix(dir+"/"+name, "/")
			t.add(t.paths[dir], name, path, kinds[path])
			t.kids[t.paths[dir]] = append(t.kids[t.paths[dir]], t.paths[path])
			order = append(order, path)
		}
	}
	return t
}

func (t *toy) add(parent pfimg.Row, name, path string, k pfimg.Kind) {
	t.paths[path] = pfimg.Row(len(t.names))
	t.parent, t.names, t.kinds, t.kids = append(t.parent, parent), append(t.names,
		name), append(t.kinds, k), append(t.kids, nil)
}

func (t *toy) Parent(r pfimg.Row) pfimg.Row {
	if int(r) >= len(t.parent) {
		return 0
	}
	return t.parent[r]
}

func (t *toy) Child(dir pfimg.Row, i int) (pfimg.Row, string, bool) {
	if i >= len(t.kids[dir]) {
		return 0, "", false
	}
	return t.kids[dir][i], t.names[t.kids[dir][i]], true
}

func (t *toy) Attr(r pfimg.Row) (pfimg.Attr, bool) {
	if int(r) >= len(t.kinds) {
		return pfimg.Attr{}, false
	}
	a := pfimg.Attr{Kind: t.kinds[r], Size: 1000}
	if t.names[r] == "empty" {
		a.Size = 0
	}
	return a, true
}

// walk returns all files in the order of a walk, as a program does it: by lists of names.
func (t *toy) walk(filesFirst bool, dir pfimg.Row) (files []pfimg.Row) {
	var later []pfimg.Row
	for _, r := range t.kids[dir] {
		switch {
		case t.names[r] == "empty":
		case t.kinds[r] == pfimg.File:
			files = append(files, r)
		case !filesFirst:
			files = append(files, t.walk(filesFirst, r)...)
		default:
			later = append(later, r)
		}
	}
	for _, r := range later {
		files = append(files, t.walk(filesFirst, r)...)
	}
	return files
}

// folders are n directories of m files each.
func folders(n, m int) (paths []string) {
	for d := range n {
		for f := range m {
			paths = append(paths, name("d", d)+"/"+name("f", f))
		}
	}
	return paths
}

func name(prefix string, n int) string {
	return prefix + string([]byte{'0' + byte(n/1000%10), '0' + byte(n/100%10), '0' + byte(n/10%10),
		'0' + byte(n%10)})
}

// project is a tree with directories between files, links, empty files and directories.
func project() *toy {
	paths := folders(20, 13)
	for d := range 20 {
		dir := name("d", d)
		paths = append(paths, dir+"/f0003.d/inner/one", dir+"/f0003.d/inner/two",
			dir+"/f0003.d/last", dir+"/link@", dir+"/none/", dir+"/empty", dir+"/zz")
	}
	return grow(append(paths, "README", "d0004.txt", "z")...)
}

func TestAfter(t *testing.T) {
	tree := project()
	for i, name := range []string{"mixed", "files first"} {
		files, next := tree.walk(i == 1, pfimg.Root), Walks(tree)[i]
		for i, r := range files[:len(files)-1] {
			if got, ok := next(r); !ok || got != files[i+1] {
				t.Fatalf("%s: after row %d comes %d (%v), want %d", name, r, got, ok, files[i+1])
			}
		}
		if got, ok := next(files[len(files)-1]); ok {
			t.Errorf("%s: after the last file comes %d", name, got)
		}
	}
	far := grow(append(folders(1, 1), slices.Repeat([]string{"e/"}, 1)...)...)
	for range maxSteps {
		far.add(pfimg.Root, "", "", pfimg.Symlink)
	}
	far.kids[pfimg.Root] = append(far.kids[pfimg.Root], pfimg.Row(len(far.names)-1))
	if _, ok := Walks(far)[0](far.paths["d0000/f0000"]); ok {
		t.Error("a search without end")
	}
}

// outcome is what a sequence of reads comes to when each fetch is there before the next read.
type outcome struct{ waited, fetched, most int }

// play reads files of 1,000 bytes.
func play(p *Policy, have map[pfimg.Row]bool, reads []pfimg.Row) (o outcome) {
	unread := map[pfimg.Row]bool{}
	for _, r := range reads {
		if !have[r] {
			o.waited++
			have[r] = true
		}
		delete(unread, r)
		ahead, _ := p.Read(r, 1)
		for _, next := range ahead {
			if have[next.Row] {
				panic("fetched twice")
			}
			have[next.Row], unread[next.Row] = true, true
			o.fetched++
		}
		o.most = max(o.most, len(unread))
	}
	return o
}

func policy(t *toy) (*Policy, map[pfimg.Row]bool) {
	have := map[pfimg.Row]bool{}
	return New(Config{Orders: Walks(t), Files: 64, Bytes: 1 << 20, Want: lacking(have)}), have
}

// lacking wants files of 1,000 bytes that are not there.
func lacking(have map[pfimg.Row]bool) func(pfimg.Row) (int64, Plan) {
	return func(r pfimg.Row) (int64, Plan) {
		if have[r] {
			return 0, Leave
		}
		return 1000, Fetch
	}
}

func interleave(lists ...[]pfimg.Row) (all []pfimg.Row) {
	for i := range lists[0] {
		for _, l := range lists {
			all = append(all, l[i])
		}
	}
	return all
}

// every returns each n-th of a list.
func every(n int, list []pfimg.Row) (some []pfimg.Row) {
	for i := 0; i < len(list); i += n {
		some = append(some, list[i])
	}
	return some
}

// TestReads: how many reads still wait, and how many files are fetched for nothing, by the order of reading.
func TestReads(t *testing.T) {
	tree, wide := project(), grow(folders(110, 100)...)
	all := wide.walk(false, pfimg.Root)
	rng := rand.New(rand.NewPCG(1, 2))
	shuffled := slices.Clone(all)
	rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	jumbled := slices.Clone(all[:2000]) // as from eight processes that share a list
	for i := 0; i+4 <= len(jumbled); i += 4 {
		rng.Shuffle(4, func(a, b int) { jumbled[i+a], jumbled[i+b] = jumbled[i+b], jumbled[i+a] })
	}
	backwards := slices.Clone(all[:500])
	slices.Reverse(backwards)
	tests := []struct {
		name           string
		tree           *toy
		reads          []pfimg.Row
		waited, wasted int // at most
	}{
		{"a walk that enters directories as it meets them", tree, tree.walk(false, pfimg.Root), 3, 0},
		{"a walk of files first", tree, tree.walk(true, pfimg.Root), 10, 0},
		{"a walk of a large tree", wide, all, 3, 0},
		{"a walk of one directory", wide, all[300:400], 3, 64},
		{"the same, again and again", wide, interleave(all[300:400], all[300:400]), 3, 64},
		{"two readers in two directories", wide, interleave(all[:1000], all[5000:6000]), 6, 128},
		{"eight readers in eight directories", wide,
			interleave(all[:500], all[1000:1500], all[2000:2500], all[3000:3500],
				all[4000:4500], all[5000:5500], all[6000:6500], all[7000:7500]), 24, 256},
		{"several processes that share a list", wide, jumbled, 8, 64},
		{"two of three files", wide, slices.DeleteFunc(slices.Clone(all[:1000]),
			func(r pfimg.Row) bool { return r%3 == 0 }), 700, 400},
		{"one of four files", wide, every(4, all[:4000]), 1000, 50},
		{"backwards", wide, backwards, 500, 0},
		{"at random", wide, shuffled[:1000], 1000, 100},
		{"three files", wide, all[200:203], 3, firstK},
		{"two files", wide, all[200:202], 2, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, have := policy(tt.tree)
			o := play(p, have, tt.reads)
			read := map[pfimg.Row]bool{}
			for _, r := range tt.reads {
				read[r] = true
			}
			wasted := len(have) - len(read)
			t.Logf("%d reads: %d waited, %d fetched ahead, %d in vain, at most %d ahead",
				len(tt.reads), o.waited, o.fetched, wasted, o.most)
			if o.waited > tt.waited || wasted > tt.wasted {
				t.Errorf("%d waited and %d were fetched in vain, want at most %d and %d", o.waited,
					wasted, tt.waited, tt.wasted)
			}
		})
	}
}

// TestBounds: what is ahead of all readers stays within the bounds, in files and in bytes, and
// every window goes.
func TestBounds(t *testing.T) {
	tree := grow(folders(110, 100)...)
	all := tree.walk(false, pfimg.Root)
	for _, bytes := range []int64{1 << 30, 20_000, 500} {
		have := map[pfimg.Row]bool{}
		p := New(Config{Orders: Walks(tree), Files: 8, Bytes: bytes, Want: lacking(have)})
		var lists [][]pfimg.Row
		for i := range 40 { // more than there are windows
			lists = append(lists, all[i*250:i*250+200])
		}
		for _, r := range interleave(lists...) {
			ahead, _ := p.Read(r, 1)
			for _, next := range ahead {
				have[next.Row] = true
			}
			if p.out.files > 32 || p.out.bytes > bytes || len(p.windows) > maxWindows ||
				len(p.at) > maxWindows*(4*8+2*slack+1) {
				t.Fatalf("ahead: %+v, %d windows, %d rows", p.out, len(p.windows), len(p.at))
			}
		}
		if bytes < 1000 && len(have) > 0 {
			t.Errorf("%d files fetched without room for one", len(have))
		}
		for len(p.windows) > 0 {
			p.forget(p.windows[0])
		}
		if len(p.at) > 0 || p.out != (total{}) {
			t.Errorf("left: %d rows, %+v", len(p.at), p.out)
		}
	}
}

// TestStart: the first two files of a directory that the same reader listed open a window, no other two do.
func TestStart(t *testing.T) {
	tree := project()
	p, have := policy(tree)
	for d := range 20 {
		r, ok := First(tree, tree.paths[name("d", d)])
		if want := tree.paths[name("d", d)+"/f0000"]; !ok || r != want {
			t.Fatalf("the first file of directory %d is row %d, want %d", d, r, want)
		}
		p.Start(r, 1+uint32(d/10))
		p.Start(r, 0)
	}
	if r, ok := First(tree, tree.paths["d0000/none"]); ok {
		t.Errorf("the first file of an empty directory is row %d", r)
	}
	if got, _ := p.Read(tree.paths["d0006/f0000"], 0); len(got) != 0 {
		t.Errorf("%d fetched for nobody", len(got))
	}
	if o := play(p, have, []pfimg.Row{tree.paths["d0003/f0001"], tree.paths["d0004/zz"],
		tree.paths["d0012/f0000"]}); o.fetched != 0 {
		t.Errorf("%d fetched after other files", o.fetched)
	}
	if o := play(p, have, []pfimg.Row{tree.paths["d0007/f0000"]}); o.fetched != 0 {
		t.Errorf("%d fetched after the first file alone", o.fetched)
	}
	if o := play(p, have, []pfimg.Row{tree.paths["d0007/f0001"]}); o.fetched != firstK {
		t.Errorf("%d fetched after the first two files, want %d", o.fetched, firstK)
	}
	if o := play(p, have, tree.walk(false, tree.paths["d0007"])); o.waited != 0 {
		t.Errorf("%d waited", o.waited)
	}
}

// TestList: two reads in the order of a list are enough, any two others are not.
func TestList(t *testing.T) {
	have := map[pfimg.Row]bool{}
	p := New(Config{Orders: List(200), Opens: 2, Files: 64, Bytes: 1 << 20, Want: lacking(have)})
	if o := play(p, have, []pfimg.Row{5, 100, 50, 150}); o.fetched != 0 {
		t.Errorf("no order, and %d fetched", o.fetched)
	}
	var list []pfimg.Row
	for r := pfimg.Row(1); r <= 200; r++ {
		list = append(list, r)
	}
	if o := play(p, have, list); o.waited > 8 || len(have) != 200 {
		t.Errorf("%d waited, %d files were had", o.waited, len(have))
	}
}

// TestShown: reads in order of cached files cause a probe now and then only, however many walks
// there are, and no more files are pushed ahead than the window allows. Where files were read
// before they were pushed, the window moves on.
func TestShown(t *testing.T) {
	tree := grow(folders(40, 50)...)
	all := tree.walk(false, pfimg.Root)
	for name, reads := range map[string][]pfimg.Row{
		"one reader":  all,
		"two readers": interleave(all[:900], all[1000:1900]),
	} {
		for _, late := range []int{1, 3} { // each n-th file is read before it was shown
			shown := map[pfimg.Row]bool{}
			p := New(Config{Orders: Walks(tree), Files: 64, Bytes: 1 << 20,
				Want: func(r pfimg.Row) (int64, Plan) { return 1000, Show }})
			asked, most := 0, 0
			var unseen []pfimg.Row
			for i, r := range reads {
				if shown[r] && (late == 1 || i%late > 0) {
					continue
				}
				asked++
				ahead, before := p.Read(r, 1)
				unseen = append(unseen, before...)
				for _, next := range ahead {
					if shown[next.Row] || next.Plan != Show {
						t.Errorf("%s: row %d shown twice, or not", name, next.Row)
					}
					shown[next.Row] = true
				}
				most = max(most, p.out.files)
			}
			if want := 200 + len(reads)/late*(late/3); asked > want || most > 128 ||
				len(shown) < len(reads)*4/5 {
				t.Errorf("%s, %d: %d of %d reads were seen, want at most %d; %d shown, %d ahead",
					name, late, asked, len(reads), want, len(shown), most)
			}
			if n := len(reads) - asked; name == "one reader" &&
				(len(unseen) > n || len(unseen) < n-64 || !slices.IsSorted(unseen)) {
				t.Errorf("%s, %d: told of %d reads that were not seen, of %d, or out of order",
					name, late, len(unseen), n)
			}
			if s := p.Stats(); s != (Stats{}) {
				t.Errorf("%s: %+v, and nothing was fetched", name, s)
			}
		}
	}
}

// TestFetchShow: a walk that has skipped no file gets what is fetched pushed into the page cache,
// and causes a probe now and then only. When it begins to skip files, little more is fetched in
// vain than with a probe for every file.
func TestFetchShow(t *testing.T) {
	tree := grow(folders(40, 50)...)
	all := tree.walk(false, pfimg.Root)
	for name, reads := range map[string][]pfimg.Row{
		"straight":    all,
		"then some":   append(slices.Clone(all[:500]), every(4, all[500:])...),
		"some":        every(3, all),
		"too few":     all[:straight],
		"out of turn": append(slices.Clone(all[1000:]), all[:1000]...),
	} {
		have, shown := map[pfimg.Row]bool{}, map[pfimg.Row]bool{}
		p := New(Config{Orders: Walks(tree), Files: 64, Bytes: 1 << 20, Want: lacking(have), Shown: 1000})
		asked, waited := 0, 0
		for _, r := range reads {
			if shown[r] {
				continue
			}
			if asked++; !have[r] {
				waited++
			}
			ahead, _ := p.Read(r, 1)
			for _, next := range ahead {
				have[next.Row] = true
				shown[next.Row] = next.Plan == FetchShow
			}
			have[r] = true
		}
		read := map[pfimg.Row]bool{}
		for _, r := range reads {
			read[r] = true
		}
		wasted := len(have) - len(read)
		want := map[string][3]int{ // asked, waited, wasted at most
			"straight": {250, 3, 0}, "then some": {700, 400, 150},
			"some": {len(reads), len(reads), 20}, "too few": {straight, 3, 64},
			"out of turn": {400, 6, 0},
		}[name]
		if asked > want[0] || waited > want[1] || wasted > want[2] {
			t.Errorf("%s: of %d reads %d were seen, %d waited, %d were fetched in vain; want at most %v", name, len(reads), asked, waited, wasted, want)
		}
		t.Logf("%s: of %d reads %d were seen, %d waited, %d were fetched in vain; %+v", name,
			len(reads), asked, waited, wasted, p.Stats())
	}
}

// TestLargeFilesBeside: files that take several reads, read by two at once, open a window for each of them.
func TestLargeFilesBeside(t *testing.T) {
	tree := grow(folders(2, 100)...)
	a, b := tree.walk(false, tree.paths["d0000"]), tree.walk(false, tree.paths["d0001"])
	var reads []pfimg.Row
	for i := range a {
		reads = append(reads, a[i], b[i], a[i], b[i], a[i])
	}
	p, have := policy(tree)
	if o := play(p, have, reads); o.waited > 6 {
		t.Errorf("%d waited", o.waited)
	}
}

// TestBooks: whatever is read, each row that leads to a window is one that it expects, and the sums
// are right.
func TestBooks(t *testing.T) {
	tree := project()
	lists := [][]pfimg.Row{tree.walk(false, pfimg.Root), tree.walk(true, pfimg.Root)}
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		have := map[pfimg.Row]bool{}
		p := New(Config{Orders: Walks(tree), Files: 1 + rng.IntN(32), Shown: 1000, Bytes: 20_000,
			Want: func(r pfimg.Row) (int64, Plan) {
				if have[r] {
					return 0, Leave
				}
				return int64(rng.IntN(2000)), Plan(rng.IntN(3))
			}})
		at := make([]int, 20) // readers, in one list or the other
		for range 2000 {
			i := rng.IntN(len(at))
			list := lists[i%2]
			if at[i] += 1 + rng.IntN(8)/7*rng.IntN(4); at[i] >= len(list) || rng.IntN(50) == 0 {
				at[i] = rng.IntN(len(list))
			}
			if rng.IntN(20) == 0 {
				p.Start(list[at[i]], 1)
			}
			ahead, _ := p.Read(list[at[i]], 1)
			for _, next := range ahead {
				have[next.Row] = true
			}
		}
		var out total
		for _, w := range p.windows {
			var own total
			for _, g := range w.guesses {
				if g.size >= 0 {
					own.files, own.bytes = own.files+1, own.bytes+g.size
				}
			}
			if own != w.out {
				t.Errorf("seed %d: a window counts %+v, and has %+v", seed, w.out, own)
			}
			out.files, out.bytes = out.files+own.files, out.bytes+own.bytes
		}
		if out != p.out {
			t.Errorf("seed %d: counted %+v, there are %+v", seed, p.out, out)
		}
		for r, w := range p.at {
			if r != w.detour && !w.guessed(r) {
				t.Errorf("seed %d: row %d leads to a window that does not expect it", seed, r)
			}
		}
	}
}

// TestGrowth: k doubles with each hit, and few bytes are ahead of a reader of few.
func TestGrowth(t *testing.T) {
	tree := grow(folders(1, 300)...)
	all := tree.walk(false, pfimg.Root)
	p, have := policy(tree)
	var ks []int
	for _, r := range all[:9] {
		play(p, have, []pfimg.Row{r})
		ks = append(ks, p.windows[0].k)
	}
	if want := []int{0, 0, 8, 16, 32, 64, 64, 64, 64}; !slices.Equal(ks, want) {
		t.Errorf("k was %v, want %v", ks, want)
	}
	large := New(Config{Orders: Walks(tree), Files: 64, Bytes: 1 << 30,
		Want: func(pfimg.Row) (int64, Plan) { return firstBytes / 2, Fetch }})
	for i, r := range all[:6] {
		next, _ := large.Read(r, 1)
		got := len(next)
		if want := []int{0, 0, 2, 3, 3, 3}[i]; got != want {
			t.Errorf("read %d fetched %d ahead, want %d", i, got, want)
		}
	}
}
