package pfimg

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// stream is a blob that a test makes up while it is read.
type stream struct {
	io.Reader
	closing error
	closed  *int
}

func (s stream) Close() error {
	*s.closed++
	return s.closing
}

var errNetwork = errors.New("the network is away")

func TestBuildPassesErrorsOn(t *testing.T) {
	tree, table := treeOf(file("a", 1), file("b", 2)), emptyTable
	half := io.MultiReader(strings.NewReader(tree[:40]), iotest.ErrReader(errNetwork))
	cut := io.MultiReader(strings.NewReader(tree[:40]), iotest.ErrReader(io.ErrUnexpectedEOF))
	late := io.MultiReader(strings.NewReader(tree), iotest.ErrReader(errNetwork))
	tests := []struct {
		name          string
		tree, table   io.Reader
		closing       error
		wantErr, isnt error
		says          string
		closed        int
	}{
		{"all well", strings.NewReader(tree), strings.NewReader(table), nil, nil, nil, "", 2},
		{"one byte at a time", iotest.OneByteReader(strings.NewReader(tree)),
			iotest.DataErrReader(strings.NewReader(table)), nil, nil, nil, "", 2},
		{"open fails", nil, strings.NewReader(table), nil, errNetwork, ErrIntegrity,
			"world.fs: open sha256:", 0},
		{"open of the table fails", strings.NewReader(tree), nil, nil, errNetwork, ErrIntegrity,
			"cache.manifest: open sha256:", 1},
		{"read fails at once", iotest.ErrReader(errNetwork), nil, nil, errNetwork, ErrIntegrity,
			"world.fs: read", 1},
		{"read fails midway", half, nil, nil, errNetwork, ErrIntegrity, "world.fs: read", 1},
		{"read is cut midway", cut, nil, nil, io.ErrUnexpectedEOF, ErrIntegrity, "world.fs: read", 1},
		{"read fails after the value", late, nil, nil, errNetwork, ErrIntegrity, "world.fs: read", 1},
		{"close fails", strings.NewReader(tree), nil, errNetwork, errNetwork, ErrIntegrity,
			"world.fs: close", 1},
		{"the bytes end early", strings.NewReader(tree[:40]), nil, nil, ErrIntegrity, errNetwork,
			"world.fs: bad JSON: offset", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, closed := testManifest(tree, table), 0
			open := func(_ context.Context, d Digest) (io.ReadCloser, error) {
				r := tt.table
				if d == m.World.FS {
					r = tt.tree
				}
				if r == nil {
					return nil, errNetwork
				}
				return stream{r, tt.closing, &closed}, nil
			}
			x, err := Build(context.Background(), m, open)
			wantError(t, err, tt.wantErr, tt.says)
			if tt.isnt != nil && errors.Is(err, tt.isnt) {
				t.Errorf("error %v is also %v", err, tt.isnt)
			}
			if closed != tt.closed || (x == nil) != (err != nil) {
				t.Errorf("%d closed, want %d; index %v", closed, tt.closed, x != nil)
			}
		})
	}
}

func TestBuildEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	m, closed := testManifest("", ""), 0
	endless := &repeat{head: `{"kind":"fs.tree.v1","entries":[`, unit: "{" + dir("a") + "},",
		count: 1 << 40, each: func(n int) {
			if n == 1000 {
				cancel()
			}
		}}
	_, err := Build(ctx, m, func(context.Context, Digest) (io.ReadCloser, error) { return stream{endless, nil, &closed}, nil })
	wantError(t, err, context.Canceled, "world.fs")
	if closed != 1 {
		t.Errorf("%d closed, want 1", closed)
	}
}

// repeat reads as head, then count times unit, then tail, without ever holding them.
type repeat struct {
	head, unit, tail string
	count, done      int
	each             func(n int)
	rest             []byte
}

func (r *repeat) Read(p []byte) (int, error) {
	switch {
	case len(r.rest) > 0:
	case r.head != "":
		r.rest, r.head = []byte(r.head), ""
	case r.done < r.count:
		n := min(100, r.count-r.done)
		r.rest = bytes.Repeat([]byte(r.unit), n)
		if r.done += n; r.each != nil {
			r.each(r.done)
		}
	case r.tail != "":
		r.rest, r.tail = []byte(r.tail), ""
	default:
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Hostile bytes far larger than any limit end soon, in little memory, whatever form they have.
func TestEndlessTrees(t *testing.T) {
	const open = `{"kind":"fs.tree.v1","entries":[`
	tests := []struct {
		name    string
		r       *repeat
		wantErr error
		says    string
	}{
		{"10 million entries", &repeat{head: open, unit: `{"path":"a","kind":"dir"},`,
			count: 10_000_000}, ErrUnsupported, "more than 4000000 entries"},
		{"1 GB in a string", &repeat{head: open + `{"path":"`, unit: strings.Repeat("a", 1000),
			count: 1_000_000}, ErrIntegrity, "token"},
		{"1 GB in a number", &repeat{head: open + `{"size":1`, unit: strings.Repeat("0", 1000),
			count: 1_000_000}, ErrIntegrity, "token"},
		{"1 GB of white space", &repeat{head: open, unit: strings.Repeat(" ", 1000),
			count: 1_000_000}, ErrIntegrity, "token"},
		{"1 GB of white space behind", &repeat{head: treeOf(), unit: strings.Repeat("\n", 1000),
			count: 1_000_000}, ErrIntegrity, "token"},
		{"1 GB of brackets", &repeat{head: `{"x":`, unit: strings.Repeat("[", 1000),
			count: 1_000_000}, ErrIntegrity, "deep"},
		{"1 GB in a name", &repeat{head: `{"`, unit: strings.Repeat("a", 1000), count: 1_000_000},
			ErrIntegrity, "token"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, closed := testManifest("", ""), 0
			_, err := Build(context.Background(), m,
				func(context.Context, Digest) (io.ReadCloser,
					error) {
					return stream{tt.r, nil, &closed}, nil
				})
			wantError(t, err, tt.wantErr, tt.says)
			if tt.r.done > tt.r.count/2 {
				t.Errorf("%d of %d pieces were read", tt.r.done, tt.r.count)
			}
		})
	}
}
