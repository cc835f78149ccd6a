package imgbuild

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
)

// TopFields are the manifest's eight blobs in the order in which the reference pushes them.
var TopFields = [8]string{
	"model.base", "model.diff", "cache.manifest", "world.fs",
	"world.env", "world.procs", "effects.ledger", "trace.messages",
}

// Build makes the image that s describes: signature layer first, then the top-level blobs, the tree's
// blobs in tree order, the pages; a digest that came earlier is not repeated.
func Build(s Spec) (*Image, error) {
	enc, err := newEncoder(s.Dir)
	if err != nil {
		return nil, err
	}
	defer enc.z.Close()
	b := &builder{spec: s, enc: enc, tops: map[string]Layer{}, seen: map[string]bool{}}
	if err := b.tree(); err != nil {
		return nil, fmt.Errorf("world.fs: %w", err)
	}
	if err := b.pages(); err != nil {
		return nil, fmt.Errorf("cache.manifest: %w", err)
	}
	for field, text := range defaultTops {
		if err := b.top(field, Text(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
	}
	return b.image()
}

// defaultTops is what an image holds where the Spec says nothing.
var defaultTops = map[string]string{
	"model.base":     "base:claude-code",
	"model.diff":     `{"diff":{"adapters":[],"kind":"lora"},"layout":"model.diff.v1"}`,
	"world.env":      `{"kind":"env.v1","cwd":"/home/dev/project","vars":{"LANG":"C.UTF-8"}}`,
	"world.procs":    `{"kind":"procs.unsupported.v1","unsupported_on":"linux"}`,
	"effects.ledger": `{"entries":0,"kind":"effects.ledger.v1","verification_mode":"none"}` + "\n",
	"trace.messages": `{"role":"user","content":"hello"}` + "\n",
}

// builder holds what is collected while an image is built.
type builder struct {
	spec  Spec
	enc   *encoder
	tops  map[string]Layer
	below []Layer         // blobs of the tree and the pages, without repetition
	seen  map[string]bool // logical digests in below
}

// top compresses a top-level blob, unless the Spec brings its own or it is there already.
func (b *builder) top(field string, c Content) error {
	if _, ok := b.tops[field]; ok {
		return nil
	}
	if raw, ok := b.spec.Top[field]; ok {
		c = Bytes(raw)
	}
	blob, logical, err := b.enc.encode(c)
	b.tops[field] = newLayer(blob, logical)
	return err
}

// add compresses a blob below the tree or the page table and gives its logical digest.
func (b *builder) add(c Content) (string, error) {
	// Equal short texts come by the hundred thousand: they are compressed once.
	small, ok := c.(Bytes)
	if ok && len(small) <= 4096 {
		d := digestOf(small)
		if b.seen[d] {
			return d, nil
		}
	}
	blob, logical, err := b.enc.encode(c)
	if err != nil || b.seen[logical] {
		return logical, err
	}
	b.seen[logical] = true
	b.below = append(b.below, newLayer(blob, logical))
	return logical, nil
}

// tree compresses the entries' blobs and writes world.fs through a file, so that no tree stands in memory.
func (b *builder) tree() error {
	f, err := os.CreateTemp(b.spec.Dir, "tree-*.json")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	w.WriteString(`{"kind":"fs.tree.v1","entries":[`)
	var line []byte
	first := true
	for e := range b.spec.all() {
		if e.Content != nil && e.Kind != "dir" {
			logical, err := b.add(e.Content)
			if err != nil {
				return fmt.Errorf("%q: %w", e.Path, err)
			}
			if e.Blob == "" {
				e.Blob = logical
			}
		}
		if !first {
			w.WriteByte(',')
		}
		first = false
		line = e.appendJSON(line[:0])
		w.Write(line)
	}
	w.WriteString("]}")
	if err := w.Flush(); err != nil {
		return err
	}
	if b.spec.Tree != nil {
		return b.top("world.fs", Bytes(b.spec.Tree))
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return b.top("world.fs", fileContent{f.Name(), st.Size()})
}

// pages compresses the pages and writes the page table.
func (b *builder) pages() error {
	var table bytes.Buffer
	table.WriteString(`{"dtype":"bf16","head_dim":0,"layout":"paged-batchinvariant-v1","logical_seqs":[],` +
		`"n_heads":0,"n_layers":0,"page_size_tokens":16,"pages":[`)
	for i, p := range b.spec.Pages {
		k, err := b.add(p.K)
		if err != nil {
			return err
		}
		v, err := b.add(p.V)
		if err != nil {
			return err
		}
		if i > 0 {
			table.WriteByte(',')
		}
		fmt.Fprintf(&table, `{"ix":%d,"k":%q,"v":%q}`, i, k, v)
	}
	table.WriteString("]}")
	return b.top("cache.manifest", Bytes(table.Bytes()))
}

// image puts the parts together and signs.
func (b *builder) image() (*Image, error) {
	img := &Image{ConfigType: ConfigType, Layers: make([]Layer, 1, 9+len(b.below))}
	there := map[string]bool{}
	for _, field := range TopFields {
		if l := b.tops[field]; !there[l.Logical] {
			there[l.Logical] = true
			img.Layers = append(img.Layers, l)
		}
	}
	for _, l := range b.below {
		if !there[l.Logical] {
			img.Layers = append(img.Layers, l)
		}
	}
	img.SetManifest(b.manifest(), b.spec.Key)
	return img, nil
}

// fileContent is content kept in a file.
type fileContent struct {
	path string
	size int64
}

func (c fileContent) Size() int64 { return c.size }

func (c fileContent) WriteTo(w io.Writer) (int64, error) {
	f, err := os.Open(c.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return io.Copy(w, f)
}
