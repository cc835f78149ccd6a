package main

import (
	"bufio"
	"context"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/pfmount/pfmount/test/imgbuild"
)

// shape is the tree that is measured: src/dNNNN/fNNNN.txt of 1 to 7 KiB, and big.bin.
type shape struct {
	folders, files int
	big            int64
}

// entries are the tree in the order of the image.
func (s shape) entries() iter.Seq[imgbuild.Entry] {
	return func(yield func(imgbuild.Entry) bool) {
		if !yield(imgbuild.File("big.bin", "0644", prose{seed: 1 << 40, size: s.big})) ||
			!yield(imgbuild.Dir("src", "0755")) {
			return
		}
		for e := range imgbuild.Folders(s.folders, s.files, func(n int) imgbuild.Content {
			return prose{seed: uint64(n + 1), size: 1024 + int64(n)*2654435761%6144}
		}) {
			e.Path = "src/" + e.Path
			if !yield(e) {
				return
			}
		}
	}
}

// write lays the tree out below dir.
func (s shape) write(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for e := range s.entries() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		path := filepath.Join(dir, e.Path)
		if e.Kind == "dir" {
			if err := os.Mkdir(path, 0o755); err != nil {
				return err
			}
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = e.Content.WriteTo(f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// prose is text of random words: it compresses about as source code does, and costs no memory.
type prose struct {
	seed uint64
	size int64
}

var words = strings.Fields(`the session holds a working tree with every file as the agent left it and names each by digest
func return if err != nil { } := range for package import struct string int64 []byte error const var type map[string]any
0x1f 4096 65536 3.14159 true false io.Reader ctx context.Context fmt.Errorf("%s: %w", name, err) // measure, then change
export class Index extends Component<Props> async await Promise.all([ ]) => null undefined this.state console.log('mounted')
def __init__(self, path: str) -> None: yield from lambda x: x.encode("utf-8") raise ValueError(f"bad {path}")`)

// Size is the length in bytes.
func (p prose) Size() int64 { return p.size }

// WriteTo writes all of it, the same at each call.
func (p prose) WriteTo(w io.Writer) (int64, error) {
	b := bufio.NewWriterSize(w, int(min(p.size+1, 256<<10)))
	x := p.seed*2685821657736338717 + 88172645463325252
	for done := int64(0); done < p.size; {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		for r, i := x, 0; i < 6 && done < p.size; i++ {
			word := words[r%uint64(len(words))]
			r /= uint64(len(words))
			word = word[:min(int64(len(word)), p.size-done)]
			b.WriteString(word) // Flush gives the error
			done += int64(len(word))
			if done < p.size {
				end := byte(' ')
				if i == 5 {
					end = '\n'
				}
				b.WriteByte(end)
				done++
			}
		}
	}
	return p.size, b.Flush()
}
