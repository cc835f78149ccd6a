package pfimg

import (
	"fmt"
	"strings"
	"testing"
)

// page is an element of "pages"; k and v are the digests of these texts.
func page(ix int, k, v string) string {
	return fmt.Sprintf(`{"ix":%d,"k":"%s","v":"%s"}`, ix, hash(k), hash(v))
}

// tableOf makes a page table; before and after are fields around "pages".
func tableOf(before string, pages []string, after string) string {
	table := `"pages":[` + strings.Join(pages, ",") + `]`
	if before != "" {
		table = before + "," + table
	}
	if after != "" {
		table += "," + after
	}
	return "{" + table + "}"
}

func TestPagesShow(t *testing.T) {
	const shape = `"n_layers":2,"page_size_tokens":16,"n_heads":4,"head_dim":8`
	one := []string{page(0, "k", "v")}
	tests := []struct {
		name, table string
		size        int64 // of every k and v
		pages       int
	}{
		{"bf16", tableOf(`"layout":"paged-batchinvariant-v1","dtype":"bf16",`+shape, one, ""), 2048, 1},
		{"f16, fields after the pages", tableOf("", one, shape+`,"dtype":"f16"`), 2048, 1},
		{"f32", tableOf(shape, one, `"dtype":"f32"`), 4096, 1},
		{"fp8e4m3", tableOf(shape, one, `"dtype":"fp8e4m3"`), 1024, 1},
		{"unknown dtype", tableOf(shape+`,"dtype":"int4"`, one, ""), -1, 1},
		{"unknown dtype beside page_size_bytes",
			tableOf(shape+`,"dtype":"int4","page_size_bytes":7`, one, ""), -1, 1},
		{"page_size_bytes", tableOf(`"page_size_bytes":7`, one, ""), 7, 1},
		{"page_size_bytes, dtype missing", tableOf(shape+`,"page_size_bytes":7`, one, ""), 7, 1},
		{"page_size_bytes, a field null",
			tableOf(strings.Replace(shape, "16", "null", 1)+`,"dtype":"bf16","page_size_bytes":7`,
				one, ""), 7, 1},
		{"the fields beat page_size_bytes", tableOf(shape+`,"dtype":"bf16","page_size_bytes":7`,
			one, ""), 2048, 1},
		{"neither", tableOf("", one, ""), -1, 1},
		{"another layout", tableOf(`"layout":"ragged-v2","dtype":"bf16",`+shape, one, ""), -1, 1},
		{"extra fields", tableOf(`"note":"x","logical_seqs":[[0,1],{"a":null}]`,
			[]string{`{"x":[],"v":"` + hash("v").String() + `","ix":0,"k":"` + hash("k").String() +
				`"}`}, ""), -1, 1},
		{"k and v are one blob", tableOf("", []string{page(0, "k", "k")}, ""), -1, 1},
		{"gaps, any order", tableOf("", []string{page(MaxPageIx, "a", "b"), page(7, "c", "d")}, ""), -1, 2},
		{"no pages", `{"dtype":"bf16",` + shape + `,"pages":[]}`, -1, 0},
		{"pages missing", `{}`, -1, 0},
		{"pages null", `{"pages":null,"layout":null,"dtype":null}`, -1, 0},
		{"zeros say no size", tableOf(strings.Replace(shape, "8", "0", 1)+`,"dtype":"bf16"`, one, ""), -1, 1},
		{"zeros beside page_size_bytes",
			tableOf(strings.Replace(shape, "8", "0", 1)+`,"dtype":"bf16","page_size_bytes":7`, one,
				""), 7, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x, err := buildFrom(treeOf(), tt.table, 1000)
			if err != nil {
				t.Fatal(err)
			}
			got := list(t, x, "cache/pages")
			if len(got) != 2*tt.pages || x.Stats().Pages != tt.pages {
				t.Errorf("got %v and %d pages, want %d", got, x.Stats().Pages, tt.pages)
			}
			for name, line := range got {
				if want := fmt.Sprintf("file 0444 %d", tt.size); line != want {
					t.Errorf("%s: got %q, want %q", name, line, want)
				}
			}
			if _, ok := got["00000000.k"]; !ok && tt.pages == 1 {
				t.Errorf("00000000.k is not among %v", got)
			}
			if _, ok := got["99999999.v"]; !ok && tt.pages == 2 {
				t.Errorf("99999999.v is not among %v", got)
			}
		})
	}
}

func TestPagesRefuse(t *testing.T) {
	d := hash("k").String()
	tests := []struct{ name, table, says string }{
		{"ix twice", tableOf("", []string{page(3, "a", "b"), page(3, "a", "b")}, ""), "ix 3 is there twice"},
		{"ix negative", tableOf("", []string{page(-1, "a", "b")}, ""), "-1"},
		{"ix of nine digits", tableOf("", []string{page(MaxPageIx+1, "a", "b")}, ""), "100000000"},
		{"ix huge", tableOf("", []string{`{"ix":1` + strings.Repeat("0", 9999) + `}`}, ""), "/pages/0/ix"},
		{"ix a string", tableOf("", []string{`{"ix":"1"}`}, ""), "/pages/0/ix"},
		{"no ix", tableOf("", []string{`{"k":"` + d + `","v":"` + d + `"}`}, ""),
			"page 0: it needs ix, k and v"},
		{"no k", tableOf("", []string{page(0, "a", "b"), `{"ix":1,"v":"` + d + `"}`}, ""),
			"page 1: it needs ix, k and v"},
		{"no v", tableOf("", []string{`{"ix":0,"k":"` + d + `"}`}, ""), "page 0"},
		{"v null", tableOf("", []string{`{"ix":0,"k":"` + d + `","v":null}`}, ""), "/pages/0/v"},
		{"bad digest", tableOf("", []string{`{"ix":0,"k":"sha256:0"}`}, ""), "/pages/0/k"},
		{"duplicate field", tableOf("", []string{`{"ix":0,"ix":1}`}, ""), "duplicate"},
		{"page no object", tableOf("", []string{"7"}, ""), "/pages/0"},
		{"pages no array", `{"pages":{}}`, "/pages"},
		{"no object", `[]`, "the top level"},
		{"page_size_bytes negative", `{"page_size_bytes":-1}`, "-1"},
		{"page_size_bytes huge", `{"page_size_bytes":9007199254740993}`, "9007199254740993"},
		{"n_layers a fraction", `{"n_layers":0.5}`, "0.5"},
		{"n_heads a string", `{"n_heads":"4"}`, "/n_heads"},
		{"dtype a number", `{"dtype":2}`, "/dtype"},
		{"overflow", `{"pages":[],"dtype":"bf16","n_layers":4294967296,"page_size_tokens":4294967296,"n_heads":4294967296,"head_dim":1}`, "more than 9007199254740992 bytes"},
		{"overflow to 0", `{"pages":[],"dtype":"bf16","n_layers":4294967296,"page_size_tokens":2147483648,"n_heads":1,"head_dim":1}`, "more than 9007199254740992 bytes"},
		{"beyond 2^53", `{"pages":[],"dtype":"bf16","n_layers":9007199254740992,"page_size_tokens":1,"n_heads":1,"head_dim":1}`, "more than"},
		{"one digest, a page and a file", tableOf(`"page_size_bytes":7`,
			[]string{page(0, "x", "v")}, ""),
			`has 1 bytes in "world/fs/f" and 7 in "cache/pages/00000000.k"`},
		{"nested 200,000 deep", `{"logical_seqs":` + strings.Repeat("[", 200_000), "deep"},
		{"trailing bytes", emptyTable + "[]", "after"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := buildFrom(treeOf(file("f", 1)), tt.table, 1000)
			wantError(t, err, ErrIntegrity, tt.says)
			if !strings.HasPrefix(err.Error(), "cache.manifest: ") {
				t.Errorf("error %q does not begin with the blob's name", err)
			}
		})
	}
}

func TestPagesLimit(t *testing.T) {
	pages := []string{page(0, "a", "b"), page(1, "a", "b"), page(2, "a", "b")}
	_, err := buildFrom(treeOf(), tableOf("", pages[:2], ""), 4)
	wantError(t, err, nil, "")
	_, err = buildFrom(treeOf(), tableOf("", pages, ""), 4)
	wantError(t, err, ErrUnsupported, "more than 2 pages")
}
