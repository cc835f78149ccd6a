package pfimg

import (
	"fmt"
	"math/bits"

	"github.com/pfmount/pfmount/fetch/strictjson"
)

// pageLayout is the one layout whose page sizes are known.
const pageLayout = "paged-batchinvariant-v1"

// pageTable is the state of reading cache.manifest. Numbers are -1 while they are not there.
type pageTable struct {
	dir     uint32 // node of cache/pages
	first   int    // the pages' nodes are first …
	count   int    // pages: each has a k and a v
	layout  string
	dtype   string
	numbers [4]int64 // n_layers, page_size_tokens, n_heads, head_dim
	bytes   int64    // page_size_bytes
}

// readPages reads cache.manifest. Sizes are signed as soon as the whole is read, since the fields
// that they follow from may come last.
func readPages(b *builder, s *strictjson.Reader, dir uint32) (int, error) {
	p := pageTable{dir: dir, first: len(b.nodes), numbers: [4]int64{-1, -1, -1, -1}, bytes: -1}
	if err := s.Object(func(name []byte) error { return p.field(b, s, name) }); err != nil {
		return 0, err
	}
	size, err := p.size(s)
	if err != nil || size < 0 {
		return p.count, err
	}
	for id := p.first; id < len(b.nodes); id++ {
		if err := b.size(s, b.nodes[id].ref, size, uint32(id)); err != nil {
			return 0, err
		}
	}
	return p.count, nil
}

func (p *pageTable) field(b *builder, s *strictjson.Reader, name []byte) error {
	to := &p.bytes
	switch string(name) {
	case "pages":
		if null, err := s.Null(); null || err != nil {
			return err
		}
		return p.pages(b, s)
	case "layout":
		return p.text(s, &p.layout)
	case "dtype":
		return p.text(s, &p.dtype)
	case "n_layers":
		to = &p.numbers[0]
	case "page_size_tokens":
		to = &p.numbers[1]
	case "n_heads":
		to = &p.numbers[2]
	case "head_dim":
		to = &p.numbers[3]
	case "page_size_bytes":
	default:
		return s.Skip()
	}
	null, err := s.Null()
	if null || err != nil {
		return err
	}
	*to, err = s.Number(maxSize)
	return err
}

func (p *pageTable) text(s *strictjson.Reader, to *string) error {
	null, err := s.Null()
	if null || err != nil {
		return err
	}
	text, err := s.Text()
	*to = string(text)
	return err
}

// pages reads [{"ix":0,"k":"sha256:…","v":"sha256:…"},…].
func (p *pageTable) pages(b *builder, s *strictjson.Reader) error {
	var ix int64
	var k, v Digest
	var have [3]bool
	field := func(name []byte) (err error) {
		switch string(name) {
		case "ix":
			have[0] = true
			ix, err = s.Number(MaxPageIx)
		case "k":
			have[1] = true
			k, err = readDigest(s)
		case "v":
			have[2] = true
			v, err = readDigest(s)
		default:
			err = s.Skip()
		}
		return err
	}
	var name []byte
	return s.Array(func() error {
		if p.count++; 2*p.count > b.tree.max {
			return s.Error(ErrUnsupported, "more than %d pages", b.tree.max/2)
		}
		have = [3]bool{}
		if err := s.Object(field); err != nil {
			return err
		}
		if have != [3]bool{true, true, true} {
			return s.Bad("page %d: it needs ix, k and v", p.count-1)
		}
		for i, d := range [2]Digest{k, v} {
			name = fmt.Appendf(name[:0], "%08d.%c", ix, "kv"[i])
			id, isNew := b.child(p.dir, name)
			if !isNew {
				return s.Bad("page ix %d is there twice", ix)
			}
			n := &b.nodes[id]
			n.kind, n.mode, n.ref = File, 0o444, b.blobs.add(d)
		}
		return nil
	})
}

// size is the size of every k and v in bytes, -1 when it does not follow from the table: another
// layout, a dtype of unknown width, fields missing or zero.
func (p *pageTable) size(s *strictjson.Reader) (int64, error) {
	if p.layout != "" && p.layout != pageLayout {
		return -1, nil
	}
	for _, n := range p.numbers {
		if n < 0 || p.dtype == "" {
			return p.bytes, nil
		}
	}
	size := dtypeSize(p.dtype)
	if size == 0 {
		return -1, nil
	}
	product := uint64(size)
	for _, n := range p.numbers {
		high, low := bits.Mul64(product, uint64(n))
		if high != 0 {
			product = 1 << 63
			break
		}
		product = low
	}
	if product == 0 { // placeholders of a table without a model: they must not make files empty
		return p.bytes, nil
	}
	if product > maxSize {
		return 0, s.Bad("pages of more than %d bytes", int64(maxSize))
	}
	return int64(product), nil
}

// dtypeSize is the width of an element in bytes, 0 when it is not known.
func dtypeSize(name string) int64 {
	switch name {
	case "bf16", "f16":
		return 2
	case "f32":
		return 4
	case "fp8e4m3":
		return 1
	}
	return 0
}
