package fusefs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// place is where a mount stands among those at its mount point.
type place int

const (
	absent  place = iota // it is not there
	covered              // another mount lies over it
	top                  // it is what is seen
)

// standing finds out where the mount of the device dev (major:minor) stands at point.
func standing(point, dev string) (place, error) {
	f, err := os.Open(mountTable)
	if err != nil {
		return absent, err
	}
	defer f.Close()
	return findMount(f, point, dev)
}

// findMount is standing for a mount table in the form of proc_pid_mountinfo(5).
func findMount(table io.Reader, point, dev string) (place, error) {
	const ( // fields
		id = iota
		parent
		majorMinor
		_
		mountPoint
		fields
	)
	ours, over := "", map[string]bool{} // over: the mounts at point that have one lying over them
	s := bufio.NewScanner(table)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f := strings.SplitN(s.Text(), " ", fields+1)
		if len(f) <= fields || Unescape(f[mountPoint]) != point {
			continue
		}
		over[f[parent]] = true
		if f[majorMinor] == dev {
			ours = f[id]
		}
	}
	if err := s.Err(); err != nil {
		return absent, fmt.Errorf("mount table: %w", err)
	}
	switch {
	case ours == "":
		return absent, nil
	case over[ours]:
		return covered, nil
	}
	return top, nil
}

// Unescape resolves the octal escapes of a mount table, proc_pid_mountinfo(5): \040 is a space.
func Unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
