package strictjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/pfmount/pfmount/fetch/strictjson"
)

var errInvalid = errors.New("invalid")

func document(r io.Reader) strictjson.Document {
	return strictjson.Document{Subject: "doc", From: r, Invalid: errInvalid}
}

// values are the fields that readValues knows.
type values struct {
	text    string
	number  int64
	list    []string
	skipped int
}

func readValues(r io.Reader) (v values, err error) {
	_, err = document(r).Read(func(j *strictjson.Reader) error {
		return j.Object(func(name []byte) error {
			switch string(name) {
			case "text":
				text, err := j.Text()
				v.text = string(text)
				return err
			case "number":
				v.number, err = j.Number(1000)
				return err
			case "list":
				if null, err := j.Null(); null || err != nil {
					return err
				}
				return j.Array(func() error {
					text, err := j.Text()
					v.list = append(v.list, string(text))
					return err
				})
			}
			v.skipped++
			return j.Skip()
		})
	})
	return v, err
}

func TestValues(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"none", `{}`, "{ 0 [] 0}"},
		{"all", ` {"text":"a","number":7,"list":["b","c"]} `, "{a 7 [b c] 0}"},
		{"null for a list", `{"list":null}`, "{ 0 [] 0}"},
		{"names match by case", `{"Text":"a","NUMBER":7}`, "{ 0 [] 2}"},
		{"escapes", `{"te\u0078t":"\u00e9\n\ud83d\ude00"}`, "{é\n😀 0 [] 0}"},
		{"unknown of any form", `{"x":{"a":[1,{"b":null}]},"y":-1.5e9,"text":"z"}`, "{z 0 [] 2}"},
		{"as deep as may be", `{"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`,
			"{ 0 [] 1}"},
		{"largest number", `{"number":1000}`, "{ 1000 [] 0}"},
	}
	for _, tt := range tests {
		v, err := readValues(iotest.OneByteReader(strings.NewReader(tt.in)))
		if got := fmt.Sprint(v); err != nil || got != tt.want {
			t.Errorf("%s: got %s, %v, want %s", tt.name, got, err, tt.want)
		}
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", strictjson.MaxToken)
	var names strings.Builder
	for i := range 30 {
		fmt.Fprintf(&names, `"%d%s":1,`, i, long[:strictjson.MaxNames/25])
	}
	tests := []struct{ name, in, says string }{
		{"nothing", "", "it is empty"},
		{"white space", " \n", "it is empty"},
		{"HTML", "<!doctype html>", "bad JSON"},
		{"cut", `{"text":"a`, "in the middle"},
		{"another form", `[]`, "the top level: want an object"},
		{"text is a number", `{"text":1}`, "/text: want a string"},
		{"number is a text", `{"number":"1"}`, "/number: want a number"},
		{"list is an object", `{"list":{}}`, "/list: want an array"},
		{"something follows", `{} {}`, "bytes after"},
		{"a brace follows", `{}}`, "bad JSON"},
		{"no comma", `{"text":"a" "number":1}`, "bad JSON"},
		{"a name twice", `{"text":"a","text":"a"}`, "duplicate"},
		{"a name twice by an escape", `{"text":"a","te\u0078t":"a"}`, "duplicate"},
		{"a name twice in what is skipped", `{"x":{"a":1,"a":1}}`, "duplicate"},
		{"invalid UTF-8", "{\"text\":\"\xff\"}", "UTF-8"},
		{"invalid UTF-8 in what is skipped", "{\"x\":\"\xff\"}", "UTF-8"},
		{"half of a surrogate pair", `{"text":"\ud83d"}`, "surrogate"},
		{"too deep", `{"x":` + strings.Repeat("[", 32), "nested more than 32 deep"},
		{"too large", `{"number":1001}`, "no whole number from 0 to 1000"},
		{"overflow of 64 bits", `{"number":18446744073709551617}`, "no whole number"},
		{"overflow of 64 bits in 19 digits", `{"number":9999999999999999999}`, "no whole number"},
		{"sign", `{"number":-1}`, "no whole number"},
		{"fraction", `{"number":1.0}`, "no whole number"},
		{"exponent", `{"number":1e2}`, "no whole number"},
		{"endless text", `{"text":"` + long + long + `"}`, "token"},
		{"endless name", `{"` + long + long + `":1}`, "token"},
		{"endless number", `{"number":1` + strings.Repeat("0", 2<<20) + `}`, "token"},
		{"endless white space", `{` + strings.Repeat(" ", 2*strictjson.MaxToken) + `}`, "token"},
		{"many names", `{` + names.String() + `"z":1}`, "bytes of names"},
		{"many names in what is skipped", `{"x":{` + names.String() + `"z":1}}`, "bytes of names"},
		{"an escape sequence", "{\"\\u001b[2J\\u202e\":1,\"text\":1}", "want a string"},
		{"an escape sequence in a name twice", "{\"\\u001b\":1,\"\\u001b\":1}", "duplicate"},
	}
	for _, tt := range tests {
		_, err := readValues(strings.NewReader(tt.in))
		if !errors.Is(err, errInvalid) {
			t.Errorf("%s: got error %v, want %v", tt.name, err, errInvalid)
			continue
		}
		text := err.Error()
		if !strings.HasPrefix(text, "doc: ") || !strings.Contains(text, tt.says) ||
			len(text) > 1000 || strings.ContainsAny(text, "\x1b\n\u202e") {
			t.Errorf("%s: error %q, want %q", tt.name, text, tt.says)
		}
	}
}

// TestErrorsOfOthers: an error of the source, of a callback or of another kind comes through.
func TestErrorsOfOthers(t *testing.T) {
	t.Parallel()
	broken, other := errors.New("broken pipe"), errors.New("other")
	for _, text := range []string{"", `{"text":"a`, `{"text":"a"}`} {
		_, err := readValues(io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) || errors.Is(err, errInvalid) {
			t.Errorf("%q: got %v, want %v", text, err, broken)
		}
	}
	for want, fail := range map[string]func(*strictjson.Reader) error{
		"doc: a 7: other":   func(j *strictjson.Reader) error { return j.Error(other, "a %d", 7) },
		"doc: other":        func(j *strictjson.Reader) error { return j.Wrap(other) },
		"doc: a 7: invalid": func(j *strictjson.Reader) error { return j.Bad("a %d", 7) },
		"other":             func(*strictjson.Reader) error { return other },
	} {
		_, err := document(strings.NewReader("{}")).Read(fail)
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	empty := strictjson.Document{From: strings.NewReader(""), Invalid: errInvalid}
	_, err := empty.Read((*strictjson.Reader).Skip)
	if err == nil || err.Error() != "bad JSON: it is empty: invalid" {
		t.Errorf("without subject: %v", err)
	}
}

// TestBounded: an endless document ends after little more than its limit was read.
func TestBounded(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"a", "[", " ", `{"x":`} {
		head := map[string]string{"a": `{"x":"`, "[": `{"x":`}[unit]
		src := &endless{head: head, unit: strings.Repeat(unit, 1<<10)}
		_, err := document(src).Read((*strictjson.Reader).Skip)
		if !errors.Is(err, errInvalid) || src.read > 2*strictjson.MaxToken {
			t.Errorf("%q without end: %d bytes were read, %v", unit, src.read, err)
		}
	}
}

type endless struct {
	head, unit, rest string
	read             int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.rest == "" {
		e.rest, e.head = e.head+e.unit, ""
	}
	n := copy(p, e.rest)
	e.rest, e.read = e.rest[n:], e.read+n
	return n, nil
}

// FuzzRead: what is accepted is what two other readers accept, however the bytes arrive, and what
// is refused is invalid.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"", "{}", `{"text":"a","number":7,"list":["b"],"x":[1,{"y":null}]}`, `{"a":1,"a":2}`,
		"{\"a\":\"\xff\"}", `[[[]]]`, `1e5 x`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		skip := (*strictjson.Reader).Skip
		n, err := document(bytes.NewReader(data)).Read(skip)
		_, slow := document(iotest.OneByteReader(bytes.NewReader(data))).Read(skip)
		if (err == nil) != (slow == nil) {
			t.Errorf("byte by byte: %v, at once: %v", slow, err)
		}
		if err != nil {
			if !errors.Is(err, errInvalid) {
				t.Errorf("refused, but not as invalid: %v", err)
			}
			return
		}
		if n != int64(len(data)) || !json.Valid(data) || !jsontext.Value(data).IsValid() {
			t.Errorf("accepted, %d of %d bytes", n, len(data))
		}
		v, err := readValues(bytes.NewReader(data))
		if err == nil && (v.number < 0 || v.number > 1000) {
			t.Errorf("number %d", v.number)
		}
		var m map[string]any
		if err == nil && json.Unmarshal(data, &m) != nil {
			t.Error("accepted, and no object")
		}
		if text, ok := m["text"].(string); err == nil && ok && text != v.text {
			t.Errorf("text %q, want %q", v.text, text)
		}
	})
}

// TestInteger: every int64 is read, and nothing else.
func TestInteger(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0": "", "-7": "", "9223372036854775807": "", "-9223372036854775808": "",
		"9223372036854775808": "no whole number",
		"1.0":                 "no whole number", "1e2": "no whole number",
		`"1"`: "want a number", "-": "bad JSON", "": "empty",
	} {
		var got int64
		_, err := document(strings.NewReader(text)).Read(func(j *strictjson.Reader) (err error) {
			got, err = j.Integer()
			return err
		})
		if want == "" && (err != nil || fmt.Sprint(got) != text) {
			t.Errorf("%s: got %d, %v", text, got, err)
		}
		if want != "" && (!errors.Is(err, errInvalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %d, %v, want %q", text, got, err, want)
		}
	}
}

// TestLargestNumber: the limit may be as large as an int64.
func TestLargestNumber(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"9223372036854775807": math.MaxInt64, "9223372036854775808": -1, "0": 0,
	} {
		var got int64
		_, err := document(strings.NewReader(text)).Read(func(j *strictjson.Reader) (err error) {
			got, err = j.Number(math.MaxInt64)
			return err
		})
		if (err == nil) != (want >= 0) || err == nil && got != want {
			t.Errorf("%s: got %d, %v", text, got, err)
		}
	}
}
