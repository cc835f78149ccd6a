package capture

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

const fixtureStore = "../../test/testdata/fixtures/store"

// minimal is the id of a fixture that the reference tool captured: an agent named langgraph, one
// file, no engine.
const minimal = "42a5aded9060d459a290a989c19e46a8ba37a77663c3cfdf43da7c52341cb7dd"

// TestManifest is the manifest, byte by byte.
func TestManifest(t *testing.T) {
	ref := string(must(os.ReadFile(filepath.Join(fixtureStore, "images", minimal+".json")))(t))
	parents := []pfimg.Digest{{1}, {2}}
	c := good(t, put(t), Options{Agent: "langgraph", Name: "a \"b\" \u2028\xff", Version: "0.1.0",
		Parents: parents})
	// The constants are those of the fixture, and so their digests.
	head, _, _ := strings.Cut(ref, `"world":`)
	head = strings.NewReplacer("1.0.15", "0.1.0", "pf-cli", `a \"b\" `+"\u2028\ufffd").Replace(head)
	procs := ref[strings.Index(ref, `"procs":`):strings.Index(ref, `},"effects"`)]
	want := head + `"world":{"fs":"` + sum(`{"kind":"fs.tree.v1","entries":[]}`) + `","env":"` +
		c.m.World.Env.String() + `",` + procs +
		`},"effects":{"ledger":"` + sum(`{"entries":0,"kind":"effects.ledger.v1"}`+"\n") +
		`"},"trace":{"messages":"` + sum("") +
		`"},"created_at":"2026-05-05T14:11:00.120Z","parents":["` + parents[0].String() + `","` +
		parents[1].String() + `"]}`
	if got := string(c.m.Raw); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, d := range []pfimg.Digest{c.m.Model.Base, c.m.Model.Diff, c.m.Cache.Manifest, c.m.World.Procs} {
		path := filepath.Join(fixtureStore, "blobs", "sha256", d.Hex()[:2], d.Hex()+".zst")
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%q is no blob of the fixture: %v", c.blob(d), err)
		}
	}
}

func TestTimestamp(t *testing.T) {
	for nano, want := range map[int]string{0: "00Z", 120_000_000: "00.120Z", 1_000: "00.000001Z",
		100_000: "00.000100Z", 1: "00.000000001Z", 123_456_780: "00.123456780Z"} {
		at := time.Date(2026, 5, 5, 16, 11, 0, nano, time.FixedZone("", 7200))
		if got := timestamp(at); got != "2026-05-05T14:11:"+want {
			t.Errorf("%d: got %s", nano, got)
		}
	}
}

// TestLossy has the rules of the Unicode standard, table 3-8 and 3-11, and what the reference tool recorded.
func TestLossy(t *testing.T) {
	for in, want := range map[string]string{
		"":                  "",
		"é\U0001f600\ufffd": "é\U0001f600\ufffd",
		"a\xff\xfeb":        "a??b",
		"trunc\xe2\x82x":    "trunc?x",
		"sur\xed\xa0\x80":   "sur???",
		"over\xf8\x88\x80\x80\x80z\xc0\xafw\xf0\x9f\x98": "over?????z??w?",
		"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82A":              "????????A",
		"\xe1\x80\xe2\xf0\x91\x92\xf1\xbfA":              "????A",
		"\xf4\x91\x92\x93\xffA\x80\xbfB":                 "?????A??B",
		"\xc2":                                           "?",
	} {
		if got := lossy(in); got != strings.ReplaceAll(want, "?", "\ufffd") {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	environ := []string{"x=1", "EMPTY=", "B=\xff=\"", "a_TOKEN=s", "KEY=s", "MY_KEY=s",
		"OPENAI_API_KEY=s", "AWS_SECRET_ACCESS_KEY=s",
		"auth=s", "FOO_PWD=s", "APIKEY=s", "Z_BEARER=s", "Passwd=s", "DB_PASSWORD_2=s", "MONKEY=m", "AUTHOR=a", "x=2", "=odd"}
	want := `{"kind":"env.v1","cwd":"/a\"b","vars":{"APIKEY":"<redacted>","AUTHOR":"a","AWS_SECRET_ACCESS_KEY":"<redacted>","B":"` + "\ufffd" + `=\"",` +
		`"DB_PASSWORD_2":"<redacted>","EMPTY":"","FOO_PWD":"<redacted>","KEY":"<redacted>","MONKEY":"m","MY_KEY":"<redacted>","OPENAI_API_KEY":"<redacted>",` +
		`"Passwd":"<redacted>","Z_BEARER":"<redacted>","a_TOKEN":"<redacted>","auth":"<redacted>","x":"1"}}`
	if got := string(environment(`/a"b`, environ)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTrace(t *testing.T) {
	tests := []struct{ trace, wantErr string }{
		{"", ""},
		{`{"role":"user","content":"h\u00e9"}` + "\n\n" + ` {"content":"","role":"tool","x":[1]}`, ""},
		{`{"role":"user"}`, `line 1: no string "content"`},
		{`{"role":"user","content":"a"}` + "\n" + `{"role":1,"content":"a"}`, `line 2: no string "role"`},
		{`{"role":"user","content":["a"]}`, `no string "content"`},
		{"nope", "line 1"},
		{`["role"]`, "no JSON object"},
		{`{"role":"u","content":"c"} x`, "line 1"},
		{`{"role":"u","content":"c"}{}`, "more than one"},
		{`{"role":"u","content":"c","role":"x"}`, "duplicate"},
		{`{"role":"u","content":"` + "\xff" + `"}`, "UTF-8"},
		{`{"role":"u",`, "line 1"},
	}
	for _, tt := range tests {
		dir := put(t, "trace", tt.trace)
		if tt.wantErr != "" {
			bad(t, put(t), Options{Trace: dir + "/trace"}, dir+"/trace", tt.wantErr)
			continue
		}
		c := good(t, put(t), Options{Trace: dir + "/trace"})
		if got := c.blob(c.m.Trace.Messages); got != tt.trace {
			t.Errorf("got %q, want it as it was: %q", got, tt.trace)
		}
	}
	bad(t, put(t), Options{Trace: "/nowhere"}, "/nowhere")
}

func TestLedger(t *testing.T) {
	t.Parallel()
	const header = `{"entries":2,"kind":"effects.ledger.v1"}` + "\n"
	args := sum("args")
	entry := func(ts, tool, args, key, rest string) string {
		return `{"ts":"` + ts + `","tool_id":"` + tool + `","args_hash":"` + args +
			`","idempotency_key":"` + key + `","result_hash":"` + noDigest +
			`","side_effect_class":` + rest + "\n"
	}
	headed := `{"kind":"effects.ledger.v1","session_secret_hex":"00"}` + "\n" + `{"any":"thing"}`
	tests := []struct{ in, want, wantErr string }{
		{"", `{"entries":0,"kind":"effects.ledger.v1"}` + "\n", ""},
		{`{"x":{"a":1},"tool_id":"b\u00e9","args_hash":"` + args +
			`","timestamp":"T","session_hmac":"no"}` + "\n\n" +
			`{"ts":"U","tool_id":"t","idempotency_key":"k","side_effect_class":"idempotent"}`,
			header + entry("T", "bé", args, "", `"irreversible","x":{"a":1}}`) + entry("U", "t",
				noDigest, "k", `"idempotent"}`), ""},
		{`{"tool_id":"t"}` + "\n" + `{"tool_id":"t"}`,
			header + strings.Repeat(entry("2026-05-05T14:11:00.120Z", "t", noDigest, "",
				`"irreversible"}`), 2), ""},
		{headed, headed, ""},
		{`{"kind":"effects.merged.v1","parent_a":"x"}`, `{"kind":"effects.merged.v1","parent_a":"x"}`, ""},
		{`{"args_hash":"` + args + `"}`, "", `line 1: no string "tool_id"`},
		{`{"tool_id":"t","args_hash":"abc"}`, "", `"abc"`},
		{`{"tool_id":"t","ts":1}`, "", `"ts" is no string`},
		{`{"tool_id":"t"}` + "\n" + headed, "", "line 2"},
		{"nope", "", "line 1"},
	}
	for _, tt := range tests {
		dir := put(t, "effects", tt.in)
		if tt.wantErr != "" {
			bad(t, put(t), Options{Effects: dir + "/effects"}, dir+"/effects", tt.wantErr)
			continue
		}
		c := good(t, put(t), Options{Effects: dir + "/effects"})
		if got := c.blob(c.m.Effects.Ledger); got != tt.want {
			t.Errorf("got\n%s\nwant\n%s", got, tt.want)
		}
	}
}

func TestParseLevel(t *testing.T) {
	for in, want := range map[string]zstd.EncoderLevel{"fastest": zstd.SpeedFastest,
		"better": zstd.SpeedBetterCompression, "Best": zstd.SpeedBestCompression,
		"1": zstd.SpeedFastest, "3": zstd.SpeedDefault, "19": zstd.SpeedBestCompression} {
		if got, err := ParseLevel(in); got != want || err != nil {
			t.Errorf("%s: got %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "23", "-1", "03", "3x", "max"} {
		if got, err := ParseLevel(in); err == nil {
			t.Errorf("%q: got %v", in, got)
		}
	}
}

// TestStored looks at the frames: a window that every reader takes, at every level, and the same
// bytes each time.
func TestStored(t *testing.T) {
	t.Parallel()
	large := make([]byte, 10<<20)
	words := rand.NewChaCha8([32]byte{1})
	_, _ = words.Read(large)
	copy(large[9<<20:], large[:1<<20])
	dir := put(t, "large", string(large), "small", "x", "again", "x", "empty", "", "sub/copy", string(large))
	for _, level := range []string{"fastest", "default", "better", "best"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			o := Options{Level: must(ParseLevel(level))(t)}
			a, b := good(t, dir, o), good(t, dir, o)
			if a.report != b.report || a.report.Blobs != 1+2+8-1 || a.report.Files != 5 {
				t.Errorf("%+v, then %+v", a.report, b.report)
			}
			for _, path := range must(filepath.Glob(a.dir + "/blobs/sha256/*/*"))(t) {
				stored := must(os.ReadFile(path))(t)
				again := must(os.ReadFile(b.dir + strings.TrimPrefix(path, a.dir)))(t)
				if string(stored) != string(again) {
					t.Errorf("%s is stored in two ways", filepath.Base(path))
				}
				var h zstd.Header
				if err := h.Decode(stored); err != nil || h.WindowSize > maxWindow ||
					h.HasCheckSum || h.Skippable {
					t.Errorf("%s: %+v, %v", filepath.Base(path), h, err)
				}
			}
		})
	}
}
