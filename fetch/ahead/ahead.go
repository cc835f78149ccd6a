// Package ahead decides which files to fetch before they are read: those that a walk of the tree
// meets next, or that came next at another time. It does for the files of a tree what the
// kernel does for the pages of a file. It promises that one file read alone, and reads in no order,
// cause nothing, and that what is fetched and not read yet stays within a number of files and
// bytes. It is pure: it does not fetch, and it knows neither caches nor networks.
//
// A cached file can be pushed into the kernel's page cache before it is read; that read then causes
// no FUSE request. So every few files are left out on purpose: a READ of one proves that those
// before it were read. Fetched files are pushed, too, once a reader has read many files and left
// out none.
//
// A window follows each reader. It opens once three files were read in the order of a walk, or two
// of which the first is the first of a directory that the same reader listed, and then says which k
// files come next. k doubles with each of them that is read, and halves with each that is passed
// over.
package ahead

import (
	"slices"
	"sync"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// The numbers of the windows.
const (
	maxStarts  = 64 // directories listed and not entered that are remembered
	maxWindows = 16 // readers followed; the one that was idle longest is forgotten
	opens      = 3  // Config.Opens
	firstK     = 8  // files fetched ahead at first
	// files read in order, none left out, after which what is fetched is shown, too
	straight = 64
	// files that may be skipped or come late: several processes share a list, or some names match
	slack = 8
	// reads of others after which a window's files are not waited for when there is no more room
	idle       = 100
	firstBytes = 256 << 10 // bytes fetched ahead at first; then twice what was read in order
)

// Order is an order in which files may be read: it returns the one that follows r.
type Order func(r pfimg.Row) (pfimg.Row, bool)

// Plan is what is done about a file that comes next.
type Plan uint8

const (
	Leave Plan = iota
	Fetch      // its reader will be seen
	// It is at hand; its reader will not be seen, and nothing is lost when there is none
	Show
	FetchShow // both; only a Policy says so
)

// Next is a file that comes next.
type Next struct {
	Row  pfimg.Row
	Plan Plan // not Leave
}

// Config says what to fetch ahead of.
type Config struct {
	Orders []Order // one or two; a window begins with the first
	// reads in order that open a window; 0: 3, since two come by chance in a tree that is read at
	// random
	Opens int
	// what to do about a file, and its bytes; asked once as it comes into a window
	Want func(r pfimg.Row) (size int64, p Plan)
	// bytes of the largest file that is shown when it was fetched; 0: none is
	Shown int64
	// most files ahead of one reader; four times as many ahead of all
	Files int
	Bytes int64 // most bytes ahead of all readers
}

// Policy follows readers. It is safe for concurrent use.
type Policy struct {
	config Config

	mu      sync.Mutex // guards the fields below
	windows []*window  // the one used last comes first
	at      map[pfimg.Row]*window
	starts  [maxStarts]start // a ring
	started int              // starts so far
	reads   int64            // of all readers
	out     total            // fetched or shown, and not read yet, of all windows
	stats   Stats
}

// total counts what was fetched ahead or shown.
type total struct {
	files int
	bytes int64
}

// Stats counts files.
type Stats struct {
	Hits   int64 // fetched ahead, then read
	Wasted int64 // fetched ahead, then passed over or forgotten
}

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

// Read notes that a process reads a file, and returns which files to fetch or show now, in order,
// and which were read before it without a request.
func (p *Policy) Read(r pfimg.Row, pid uint32) (next []Next, before []pfimg.Row) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.at[r]
	switch {
	case slices.ContainsFunc(p.windows, func(w *window) bool { return w.last == r }):
		return nil, nil // the read goes on in the same file
	case w == nil:
		w = p.open(r, pid)
	case r == w.detour:
		p.turn(w, r)
	default:
		before = p.hit(w, r)
	}
	p.use(w)
	p.reads++
	w.last, w.used = r, p.reads
	w.run++
	if w.k == 0 && w.run >= p.config.Opens {
		w.k = min(firstK, p.config.Files)
	}
	p.expect(w)
	return p.extend(w), before
}

// start is where a walk of a reader may begin.
type start struct {
	row pfimg.Row
	pid uint32
}

// Start notes that a process listed the directory of r, its first file: when the same process reads
// r and the file after it, it is on a walk, and its window opens. A process that lists and leaves
// the reading to another, as a shell does, is on none. A pid of 0 is not noted.
func (p *Policy) Start(r pfimg.Row, pid uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts[p.started%maxStarts] = start{r, pid}
	p.started++
}

// open makes a window, in place of the one that was idle longest when there are too many.
func (p *Policy) open(r pfimg.Row, pid uint32) *window {
	if len(p.windows) == maxWindows {
		p.forget(p.windows[maxWindows-1])
	}
	w := &window{edge: r}
	if pid != 0 && slices.Contains(p.starts[:], start{r, pid}) {
		// One more in order opens the window: listing and reading one file is no walk.
		w.run = p.config.Opens - 2
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
