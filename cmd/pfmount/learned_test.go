package main

import (
	"slices"
	"testing"
	"time"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/fetch/pfimg"
)

func digests(n, from int) (list []pfimg.Digest) {
	for i := range n {
		list = append(list, pfimg.Digest{byte((from + i) >> 8), byte(from + i), 1})
	}
	return list
}

// TestLearner: first reads are noted once and in order, within the bounds; what an earlier mount noted stays behind them.
func TestLearner(t *testing.T) {
	store, err := cache.New(cache.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	id, now := pfimg.Digest{7}, time.Now()
	mount := func(reads []pfimg.Digest) {
		l := newLearner()
		for _, d := range reads {
			l.note(d, now)
			l.note(d, now)
		}
		if err := l.save(store, id); err != nil {
			t.Fatal(err)
		}
	}
	mount(nil)
	if got := loadLearned(store, id); got != nil {
		t.Errorf("nothing was read, and %d blobs were learned", len(got))
	}
	mount(digests(10, 0))
	mount(slices.Concat(digests(2, 5), digests(2, 100)))
	want := slices.Concat(digests(2, 5), digests(2, 100), digests(5, 0), digests(3, 7))
	if got := loadLearned(store, id); !slices.Equal(got, want) {
		t.Errorf("learned %v, want %v", got, want)
	}
	mount(digests(learnBlobs+10, 200))
	if got := loadLearned(store, id); !slices.Equal(got, digests(learnBlobs, 200)) {
		t.Errorf("learned %d blobs, want the first %d", len(got), learnBlobs)
	}
	l := newLearner()
	if !l.note(pfimg.Digest{1}, now) || !l.note(pfimg.Digest{2}, now.Add(learnFor)) || l.note(pfimg.Digest{3}, now.Add(learnFor+1)) {
		t.Error("it does not end when its time is over")
	}
}

// TestLearnedDamage: a record that is none, or is cut, teaches no more than what is whole in it.
func TestLearnedDamage(t *testing.T) {
	store, err := cache.New(cache.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	one := pfimg.Digest{1}
	for text, want := range map[string]int{"": 0, "{}": 0, learnedMagic: 0, learnedMagic + string(one[:]) + "rest": 1, learnedMagic + string(one[:31]): 0} {
		if err := store.SetRecord(learnedName(one), []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := loadLearned(store, one); len(got) != want {
			t.Errorf("%q teaches %d blobs, want %d", text, len(got), want)
		}
	}
}
