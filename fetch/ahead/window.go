package ahead

import (
	"slices"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// window is what one reader reads and will read.
type window struct {
	order   int       // in Config.Orders
	blind   int       // shown behind the last guess whose reader will be seen
	last    pfimg.Row // read last
	edge    pfimg.Row // guessed last
	guesses []guess   // what comes next, behind what was passed over
	passed  int       // how many were passed over, at most slack
	detour  pfimg.Row // what comes next if the walk has the other order; 0: the same
	used    int64     // Policy.reads at its last one
	out     total
	pace
}

// pace is how far ahead of a reader files are fetched.
type pace struct {
	run  int   // files read in order
	all  int   // of them since one was left out
	k    int   // files fetched ahead or shown; 0: the window is not open
	read int64 // bytes fetched ahead or shown that were read
}

// guess is a file that a reader should come to.
type guess struct {
	row  pfimg.Row
	size int64 // bytes if it was fetched ahead or shown, else one of those below
	plan Plan
}

// shown says that its reader is not seen.
func (g guess) shown() bool { return g.plan == Show || g.plan == FetchShow }

const (
	notAsked  = -1
	notWanted = -2
	seen      = -3 // could be shown, and is not, so that its reader is seen
)

// hit notes that a guess was right: k doubles. What was passed over before it is kept for a while,
// then halves k. It returns what was read unseen before it.
func (p *Policy) hit(w *window, r pfimg.Row) (before []pfimg.Row) {
	i := slices.IndexFunc(w.guesses, func(g guess) bool { return g.row == r })
	before = p.unseen(w, i)
	i -= len(before)
	if w.all += 1 + len(before); i != w.passed {
		w.all = 0
	}
	g := w.guesses[i]
	delete(p.at, r)
	w.guesses = append(w.guesses[:i], w.guesses[i+1:]...)
	switch {
	case i < w.passed:
		w.passed-- // it came late
	case i > w.passed && w.k == 0:
		w.run = 0 // to skip files opens no window
		fallthrough
	default:
		w.passed = i
	}
	if g.size >= 0 {
		p.add(w, -1, -g.size)
		w.read += g.size
		if g.plan != Show {
			p.stats.Hits++
		}
	}
	if g.size >= 0 || g.size == seen {
		w.k = min(2*w.k, p.config.Files)
	}
	if wasted := p.drop(w, max(0, w.passed-slack)); wasted > 0 {
		if w.k >>= wasted; w.k == 0 {
			w.run = 0
		}
	}
	return before
}

// unseen takes out and returns what was shown before the guess i, since it was read. None of it was
// passed over.
func (p *Policy) unseen(w *window, i int) (read []pfimg.Row) {
	kept := w.guesses[:0]
	for j, g := range w.guesses {
		if j >= i || !g.shown() {
			kept = append(kept, g)
			continue
		}
		if p.at[g.row] == w {
			delete(p.at, g.row)
		}
		p.add(w, -1, -g.size)
		w.read += g.size
		if g.plan == FetchShow {
			p.stats.Hits++
		}
		read = append(read, g.row)
	}
	w.guesses = kept
	return read
}

// turn begins a window's guesses anew behind r, in the other order. What was fetched comes later
// then.
func (p *Policy) turn(w *window, r pfimg.Row) {
	p.stats.Wasted -= int64(p.drop(w, len(w.guesses)))
	w.order, w.edge, w.all, w.blind = 1-w.order, r, 0, 0
}

// expect finds what comes next if the walk has the other order.
func (p *Policy) expect(w *window) {
	if len(p.config.Orders) < 2 {
		return
	}
	here, _ := p.config.Orders[w.order](w.last)
	there, ok := p.config.Orders[1-w.order](w.last)
	if !ok || there == here {
		there = 0
	}
	p.expectDetour(w, there)
}

func (p *Policy) expectDetour(w *window, r pfimg.Row) {
	if w.detour != 0 && p.at[w.detour] == w && !w.guessed(w.detour) {
		delete(p.at, w.detour)
	}
	if w.detour = 0; r != 0 && (p.at[r] == nil || p.at[r] == w) {
		w.detour, p.at[r] = r, w
	}
}

func (w *window) guessed(r pfimg.Row) bool {
	return slices.ContainsFunc(w.guesses, func(g guess) bool { return g.row == r })
}

// extend looks further until k files are ahead, and returns those that are new, several at a time.
// Files that another window expects are taken over: this reader reaches them first.
func (p *Policy) extend(w *window) (next []Next) {
	if w.out.files > w.k-w.k/4 {
		return nil
	}
	defer func() {
		if n := len(w.guesses); n > 0 && w.guesses[n-1].shown() {
			p.guess(w) // somewhere the reader must be seen again
		}
	}()
	for i := w.passed; i < w.passed+slack || w.out.files < w.k && i < w.passed+4*w.k; i++ {
		if i == len(w.guesses) && !p.guess(w) {
			break
		}
		g := &w.guesses[i]
		if g.size != notAsked || w.out.files >= w.k {
			continue
		}
		size, plan := p.config.Want(g.row)
		if plan == Fetch && size <= p.config.Shown && w.all >= straight && w.blind < w.k/4 {
			plan = FetchShow
		}
		switch {
		case plan == Leave:
			g.size = notWanted
		case plan == Show && w.blind >= w.k/4:
			g.size, w.blind = seen, 0
		case !p.room(w, size):
			return next
		default:
			g.size, g.plan = size, plan
			if w.blind++; !g.shown() {
				w.blind = 0
			}
			p.add(w, 1, size)
			next = append(next, Next{g.row, plan})
		}
	}
	return next
}

// guess adds the file that follows the last guess; false at the end of the tree.
func (p *Policy) guess(w *window) bool {
	next, ok := p.config.Orders[w.order](w.edge)
	if ok {
		w.edge = next
		w.guesses = append(w.guesses, guess{row: next, size: notAsked})
		p.at[next] = w
	}
	return ok
}

// room says that so many bytes more may be fetched ahead of w.
func (p *Policy) room(w *window, size int64) bool {
	for p.out.files >= 4*p.config.Files || p.out.bytes+size > p.config.Bytes {
		last := p.windows[len(p.windows)-1]
		if p.reads-last.used < idle {
			return false // all are in use: they share what there is
		}
		p.forget(last)
	}
	return w.out.bytes+size <= firstBytes+2*w.read
}

// drop takes the first n guesses out as wrong, and returns how many of them were fetched in vain.
func (p *Policy) drop(w *window, n int) (wasted int) {
	for _, g := range w.guesses[:n] {
		if p.at[g.row] == w {
			delete(p.at, g.row)
		}
		if g.size >= 0 {
			p.add(w, -1, -g.size)
		}
		if g.size >= 0 && g.plan != Show {
			wasted++
		}
	}
	w.guesses = append(w.guesses[:0], w.guesses[n:]...)
	w.passed = max(0, w.passed-n)
	p.stats.Wasted += int64(wasted)
	return wasted
}

func (p *Policy) add(w *window, files int, bytes int64) {
	w.out.files, w.out.bytes = w.out.files+files, w.out.bytes+bytes
	p.out.files, p.out.bytes = p.out.files+files, p.out.bytes+bytes
}
