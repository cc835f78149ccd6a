package report

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/pfmount/pfmount/fetch"
)

// How often progress is shown: on a terminal, and as plain lines elsewhere.
const (
	barEvery  = 100 * time.Millisecond
	lineEvery = 5 * time.Second
)

// Progress shows on standard error how far a push, pull or warm has come: a bar on a terminal, else
// a line now and then.
type Progress struct {
	meter  *fetch.Meter
	first  string // what the first phase does
	second string
	w      io.Writer
	quit   chan struct{}
	done   sync.WaitGroup
}

// StartProgress shows on w what meter counts until Stop is called, nothing when quiet. first and
// second name the two phases.
func StartProgress(w io.Writer, quiet bool, meter *fetch.Meter, first, second string) *Progress {
	p := &Progress{meter: meter, first: first, second: second, w: w, quit: make(chan struct{})}
	switch {
	case quiet:
	case p.w == os.Stderr && term.IsTerminal(int(os.Stderr.Fd())):
		p.done.Go(p.bars)
	default:
		p.done.Go(p.lines)
	}
	return p
}

// Stop ends it and waits.
func (p *Progress) Stop() {
	close(p.quit)
	p.done.Wait()
}

func (p *Progress) verb(n fetch.Count) string {
	if n.Sending {
		return p.second
	}
	return p.first
}

// bars draws one bar a phase.
func (p *Progress) bars() {
	tick := time.NewTicker(barEvery)
	defer tick.Stop()
	var bar *progressbar.ProgressBar
	phase := false
	for {
		n := p.meter.Now()
		if bar == nil || phase != n.Sending {
			if bar != nil {
				_ = bar.Clear()
			}
			bar, phase = newBar(p.w), n.Sending
		}
		bar.Describe(fmt.Sprintf("%s %d/%d blobs", p.verb(n), n.Blobs, n.AllBlobs))
		// Never finished by itself: the last blobs may be empty
		bar.ChangeMax64(max(n.AllStored, n.StoredBytes) + 1)
		_ = bar.Set64(n.StoredBytes)
		select {
		case <-tick.C:
		case <-p.quit:
			_ = bar.Clear()
			return
		}
	}
}

func newBar(w io.Writer) *progressbar.ProgressBar {
	return progressbar.NewOptions64(1, progressbar.OptionSetWriter(w),
		progressbar.OptionShowBytes(true), progressbar.OptionShowCount(),
		progressbar.OptionShowTotalBytes(true), progressbar.OptionUseIECUnits(true),
		progressbar.OptionSetPredictTime(true), progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(barEvery/2), progressbar.OptionSetRenderBlankState(false))
}

// lines writes a line every few seconds, for logs.
func (p *Progress) lines() {
	tick := time.NewTicker(lineEvery)
	defer tick.Stop()
	last, at := p.meter.Now(), time.Now()
	for {
		select {
		case <-tick.C:
		case <-p.quit:
			return
		}
		n, now := p.meter.Now(), time.Now()
		if n.Sending != last.Sending {
			last.StoredBytes = 0
		}
		rate := float64(max(0, n.StoredBytes-last.StoredBytes)) / now.Sub(at).Seconds()
		fmt.Fprintf(p.w, "%s: %d of %d blobs, %s of %s, %s/s%s\n", p.verb(n), n.Blobs, n.AllBlobs,
			Size(n.StoredBytes), Size(n.AllStored), Size(int64(rate)),
			timeLeft(n, rate))
		last, at = n, now
	}
}

// timeLeft estimates from the rate of the last line.
func timeLeft(n fetch.Count, rate float64) string {
	left := float64(n.AllStored - n.StoredBytes)
	if rate < 1 || left <= 0 || left/rate > 1e6 {
		return ""
	}
	return ", " + (time.Duration(left/rate) * time.Second).String() + " left"
}

// Size returns a number of bytes in the largest unit that fits.
func Size(n int64) string { return humanize.IBytes(uint64(max(0, n))) }
