package layout_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

func TestDecodeSums(t *testing.T) {
	t.Parallel()
	key := [32]byte{1, 2, 3}
	sums := bytes.Repeat([]byte("s"), 3*layout.SumSize)
	good := layout.EncodeSums(key, 11, 4, sums)
	if got := layout.DecodeSums(good, key, 11, 4); !bytes.Equal(got, sums) {
		t.Errorf("got %x", got)
	}
	for name, bad := range map[string]func() []byte{
		"other key":   func() []byte { return layout.DecodeSums(good, [32]byte{1}, 11, 4) },
		"other size":  func() []byte { return layout.DecodeSums(good, key, 12, 4) },
		"other chunk": func() []byte { return layout.DecodeSums(good, key, 11, 5) },
		"empty":       func() []byte { return layout.DecodeSums(nil, key, 11, 4) },
		"short":       func() []byte { return layout.DecodeSums(good[:len(good)-1], key, 11, 4) },
		"long":        func() []byte { return layout.DecodeSums(append(bytes.Clone(good), 0), key, 11, 4) },
	} {
		if bad() != nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1
		if layout.DecodeSums(flipped, key, 11, 4) != nil {
			t.Errorf("byte %d flipped: accepted", i)
		}
	}
}

// What disks do to a chunk shows in its sum.
func TestSumMatches(t *testing.T) {
	t.Parallel()
	good := make([]byte, 64<<10)
	for i := range good {
		good[i] = byte(i * i >> 7)
	}
	m := layout.NewSummer(len(good))
	m.Write(good)
	sums := m.Finish()
	if !layout.SumMatches(good, sums, 0) {
		t.Fatal("the chunk itself does not match")
	}
	for name, damage := range map[string]func(p []byte){
		"a bit":         func(p []byte) { p[12345] ^= 4 },
		"a lost page":   func(p []byte) { clear(p[8192:12288]) },
		"swapped pages": func(p []byte) { copy(p[:4096], good[4096:]); copy(p[4096:8192], good) },
		"a torn write":  func(p []byte) { clear(p[40<<10:]) },
		"shifted":       func(p []byte) { copy(p[1:], good) },
		"all zeros":     func(p []byte) { clear(p) },
	} {
		bad := bytes.Clone(good)
		if damage(bad); layout.SumMatches(bad, sums, 0) {
			t.Errorf("%s is not noticed", name)
		}
	}
	if layout.SumMatches(good[:len(good)-1], sums, 0) {
		t.Error("a missing byte is not noticed")
	}
}

func TestStamp(t *testing.T) {
	t.Parallel()
	key := sha256.Sum256(nil)
	st := func(sec, nsec int64, mode uint32) *unix.Stat_t {
		return &unix.Stat_t{Mode: unix.S_IFREG | mode, Mtim: unix.Timespec{Sec: sec, Nsec: nsec}}
	}
	plain := layout.Stamp(key)
	for name, c := range map[string]struct {
		st   *unix.Stat_t
		want bool
	}{
		"plain":          {st(plain.Unix(), int64(plain.Nanosecond()), 0o400), true},
		"seconds only":   {st(plain.Unix(), 0, 0o400), true},
		"other second":   {st(plain.Unix()+1, int64(plain.Nanosecond()), 0o400), false},
		"other fraction": {st(plain.Unix(), int64(plain.Nanosecond())+1, 0o400), false},
		"other mode":     {st(plain.Unix(), int64(plain.Nanosecond()), 0o600), false},
		"set-uid":        {st(plain.Unix(), int64(plain.Nanosecond()), 0o4400), false},
	} {
		if got := layout.IsExact(key, c.st); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	for _, k := range [][32]byte{{}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}} {
		if m := layout.Stamp(k); m.Year() < 2000 || m.Year() > 2017 || m.Unix()%2 != 0 {
			t.Errorf("layout.Stamp(%x) = %v", k[:8], m)
		}
	}
}

func TestParseUsage(t *testing.T) {
	t.Parallel()
	boot := strings.Repeat("b", 36)
	for text, want := range map[string]int64{
		fmt.Sprintf(layout.UsageFormat, 0, boot):            0,
		fmt.Sprintf(layout.UsageFormat, int64(1)<<62, boot): 1 << 62,
		fmt.Sprintf(layout.UsageFormat, 7, boot)[:57]:       7, // without the newline
		"":          -1,
		"7":         -1,
		"7 " + boot: -1,
		fmt.Sprintf(layout.UsageFormat, -7, boot):         -1,
		fmt.Sprintf(layout.UsageFormat, 7, boot+"b"):      -1,
		fmt.Sprintf(layout.UsageFormat, 7, boot[1:]):      -1,
		"99999999999999999999 " + boot:                    -1,
		"0000000000000000000x " + boot:                    -1,
		strings.Repeat("\x00", 58):                        -1,
		fmt.Sprintf(layout.UsageFormat, 7, boot) + "more": -1,
	} {
		n, _, ok := layout.ParseUsage(text)
		if !ok {
			n = -1
		}
		if n != want {
			t.Errorf("layout.ParseUsage(%q) = %d, want %d", text, n, want)
		}
	}
}

func TestUsageTime(t *testing.T) {
	t.Parallel()
	numbers := []int64{0, 1, 4095, 1<<20 - 1, 1 << 20, 1<<20 + 1, 123456789, 10 << 30, 1 << 50}
	for _, n := range numbers {
		m := layout.UsageTime(n)
		for what, mtim := range map[string]unix.Timespec{
			"exact":   {Sec: m.Unix(), Nsec: int64(m.Nanosecond())},
			"100 ns":  {Sec: m.Unix(), Nsec: int64(m.Nanosecond() / 100 * 100)},
			"seconds": {Sec: m.Unix()},
		} {
			st := &unix.Stat_t{Mtim: mtim}
			if !layout.Agrees(st, n) {
				t.Errorf("%d, %s: does not agree with itself", n, what)
			}
			for _, other := range numbers {
				if other != n && what != "seconds" && layout.Agrees(st, other) && mtim.Nsec != 0 {
					t.Errorf("%d, %s: agrees with %d", n, what, other)
				}
			}
		}
	}
}
