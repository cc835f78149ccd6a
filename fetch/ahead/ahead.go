// Package ahead decides which files to fetch before anybody asks for them: those that a walk of the tree meets next, or
// that came next at another time. It does for the files of a tree what the kernel does for the pages of a file. It promises that reads in no order cause
// nothing, and that what is fetched and not read yet stays within a number of files and bytes. It is pure: it does not
// fetch, and it knows neither caches nor networks.
//
// A window follows each reader. It opens once three files were read in the order of a walk, or one that is the first of a
// directory just listed, and then says which k files come next. k doubles with each of them that is read, and halves with each that is passed over.
package ahead

import (
	"slices"
	"sync"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// The numbers of the windows.
const (
	maxStarts  = 64        // directories listed and not entered that are remembered
	maxWindows = 16        // readers followed; the one that was idle longest is forgotten
	opens      = 3         // Config.Opens
	firstK     = 8         // files fetched ahead at first
	slack      = 8         // files that may be skipped or come late: several processes share a list, or some names match
	idle       = 100       // reads of others after which a window's files are not waited for when there is no more room
	firstBytes = 256 << 10 // bytes fetched ahead at first; then twice what was read in order
)

// Order is an order in which files may be read: it returns the one that follows r.
type Order func(r pfimg.Row) (pfimg.Row, bool)

// Config says what to fetch ahead of.
type Config struct {
	Orders []Order                                 // one or two; a window begins with the first
	Opens  int                                     // reads in order that open a window; 0: 3, since two come by chance in a tree that is read at random
	Want   func(r pfimg.Row) (size int64, ok bool) // whether a file should be fetched, and its bytes; asked once as it comes into a window
	Files  int                                     // most files ahead of one reader; four times as many ahead of all
	Bytes  int64                                   // most bytes ahead of all readers
}

// Policy follows readers. It is safe for concurrent use.
type Policy struct {
	config Config

	mu      sync.Mutex // guards the fields below
	windows []*window  // the one used last comes first
	at      map[pfimg.Row]*window
	starts  [maxStarts]pfimg.Row // a ring
	started int                  // starts so far
	reads   int64                // of all readers
	out     total                // fetched and not read yet, of all windows
	stats   Stats
}

// total counts what was fetched ahead.
type total struct {
	files int
	bytes int64
}

// Stats counts files.
type Stats struct {
	Hits   int64 // fetched ahead, then read
	Wasted int64 // fetched ahead, then passed over or forgotten
}

// window is what one reader reads and will read.
type window struct {
	order   int       // in Config.Orders
	last    pfimg.Row // read last
	edge    pfimg.Row // guessed last
	guesses []guess   // what comes next, behind what was passed over
	passed  int       // how many were passed over, at most slack
	detour  pfimg.Row // what comes next if the walk has the other order; 0: the same
	run     int       // files read in order
	read    int64     // bytes fetched ahead that were read
	k       int
	used    int64 // Policy.reads at its last one
	out     total
}

// guess is a file that a reader should come to.
type guess struct {
	row  pfimg.Row
	size int64 // bytes if it was fetched ahead, else notAsked or notWanted
}

const (
	notAsked  = -1
	notWanted = -2
)

// New returns a policy.
func New(c Config) *Policy {
	if c.Opens == 0 {
		c.Opens = opens
	}
	return &Policy{config: c, at: map[pfimg.Row]*window{}}
}

// Stats returns the counts so far.
func (p *Policy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Read notes that a file is read and returns which files to fetch now, in order.
func (p *Policy) Read(r pfimg.Row) []pfimg.Row {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.at[r]
	switch {
	case len(p.windows) > 0 && p.windows[0].last == r:
		return nil // it reads on in the same file
	case w == nil:
		w = p.open(r)
	case r == w.detour:
		p.turn(w, r)
	default:
		p.hit(w, r)
	}
	p.use(w)
	p.reads++
	w.last, w.used = r, p.reads
	w.run++
	if w.k == 0 && w.run >= p.config.Opens {
		w.k = min(firstK, p.config.Files)
	}
	p.expect(w)
	return p.extend(w)
}

// Start notes that a walk which begins with r is likely, since the directory of r was listed: when r is read, its window
// opens at once.
func (p *Policy) Start(r pfimg.Row) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts[p.started%maxStarts] = r
	p.started++
}

// open makes a window, in place of the one that was idle longest when there are too many.
func (p *Policy) open(r pfimg.Row) *window {
	if len(p.windows) == maxWindows {
		p.forget(p.windows[maxWindows-1])
	}
	w := &window{edge: r}
	if slices.Contains(p.starts[:], r) {
		w.run = p.config.Opens
	}
	p.windows = append(p.windows, w)
	return w
}

// use moves a window to the front.
func (p *Policy) use(w *window) {
	for i, o := range p.windows {
		if o == w {
			copy(p.windows[1:i+1], p.windows[:i])
			p.windows[0] = w
			return
		}
	}
}

// forget drops a window.
func (p *Policy) forget(w *window) {
	p.drop(w, len(w.guesses))
	p.expectDetour(w, 0)
	for i, o := range p.windows {
		if o == w {
			p.windows = append(p.windows[:i], p.windows[i+1:]...)
			return
		}
	}
}

// drop takes the first n guesses out as wrong, and returns how many of them were fetched.
func (p *Policy) drop(w *window, n int) (wasted int) {
	for _, g := range w.guesses[:n] {
		if p.at[g.row] == w {
			delete(p.at, g.row)
		}
		if g.size >= 0 {
			wasted++
			p.add(w, -1, -g.size)
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

// hit notes that a guess was right: k doubles. What was passed over before it is kept for a while, then halves k.
func (p *Policy) hit(w *window, r pfimg.Row) {
	i := 0
	for w.guesses[i].row != r {
		i++
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
		p.stats.Hits++
		w.read += g.size
		w.k = min(2*w.k, p.config.Files)
	}
	if wasted := p.drop(w, max(0, w.passed-slack)); wasted > 0 {
		if w.k >>= wasted; w.k == 0 {
			w.run = 0
		}
	}
}

// turn begins a window's guesses anew behind r, in the other order. What was fetched comes later then.
func (p *Policy) turn(w *window, r pfimg.Row) {
	p.stats.Wasted -= int64(p.drop(w, len(w.guesses)))
	w.order, w.edge = 1-w.order, r
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
	for _, g := range w.guesses {
		if g.row == r {
			return true
		}
	}
	return false
}

// extend looks further until k files are fetched ahead, and returns those that are new. What another window expects is
// taken over: it is this reader who comes there.
func (p *Policy) extend(w *window) (fetch []pfimg.Row) {
	for i := w.passed; i < w.passed+slack || w.out.files < w.k && i < w.passed+4*w.k; i++ {
		if i == len(w.guesses) && !p.guess(w) {
			break
		}
		g := &w.guesses[i]
		if g.size != notAsked || w.out.files >= w.k {
			continue
		}
		size, ok := p.config.Want(g.row)
		switch {
		case !ok:
			g.size = notWanted
		case !p.room(w, size):
			return fetch
		default:
			g.size = size
			p.add(w, 1, size)
			fetch = append(fetch, g.row)
		}
	}
	return fetch
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
