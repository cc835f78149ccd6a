package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/safetext"
)

// Bounds of one hosts.toml. The decoder takes time by the square of a file's tables and worse
// by their depth.
const (
	maxHostsFile  = 256 << 10 // bytes
	maxHostsDepth = 16        // of brackets and braces; the format needs two
	maxHostsDots  = 64        // of a line, which may all be one key's
	maxMirrors    = 64        // hosts that it may name
	maxUnknown    = 16        // of its keys that are warned of
)

// hostsFile is containerd's hosts.toml: hosts that answer for a registry, and how each is spoken
// to.
// https://github.com/containerd/containerd/blob/v2.2.0/docs/hosts.md
type hostsFile struct {
	Server string `toml:"server"`
	hostTable
	Host map[string]hostTable `toml:"host"`

	order []string // of Host's keys, as they stand in the file
}

// hostTable is what the file says of one host. At the top of the file it is the registry itself.
type hostTable struct {
	Capabilities capabilities `toml:"capabilities"`
	CA           fileNames    `toml:"ca"`
	Client       pairNames    `toml:"client"`
	Header       headerTable  `toml:"header"`
	DialTimeout  tomlDuration `toml:"dial_timeout"`
	SkipVerify   bool         `toml:"skip_verify"`
	OverridePath bool         `toml:"override_path"`
}

// hostsFolder returns the folder of a registry below containerd's: the first that exists of
// host_port_, host:port and _default; "" when there is none.
func hostsFolder(root, host string) string {
	if root == "" {
		return ""
	}
	names := []string{host, "_default"}
	if i := strings.LastIndexByte(host, ':'); i > 0 && !strings.HasSuffix(host, "]") {
		names = slices.Insert(names, 0, host[:i]+"_"+host[i+1:]+"_")
	}
	for _, name := range names {
		if fi, err := os.Stat(filepath.Join(root, name)); err == nil && fi.IsDir() {
			return filepath.Join(root, name)
		}
	}
	return ""
}

// readHosts reads a folder's hosts.toml; nil when there is none, or an empty one.
func readHosts(dir string, warn func(string)) (*hostsFile, error) {
	name := filepath.Join(dir, "hosts.toml")
	text, err := readConfig(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case len(bytes.TrimSpace(text)) == 0:
		return nil, nil
	}
	if err := checkHosts(name, text); err != nil {
		return nil, err
	}
	f := &hostsFile{}
	md, err := toml.Decode(string(text), f)
	if err != nil {
		return nil, tomlError(name, err)
	}
	unknown := md.Undecoded()
	for _, k := range unknown[:min(len(unknown), maxUnknown)] {
		last := k[len(k)-1]
		warn(fmt.Sprintf("%s: line %d: %s is not known here and not heeded",
			clip(name, maxText), lineOf(text, last), safetext.Quote(last, 100)))
	}
	if more := len(unknown) - maxUnknown; more > 0 {
		warn(fmt.Sprintf("%s: %d more keys are not known here", clip(name, maxText), more))
	}
	for _, k := range md.Keys() {
		if len(k) > 1 && k[0] == "host" && len(f.order) <= maxMirrors &&
			!slices.Contains(f.order, k[1]) {
			f.order = append(f.order, k[1])
		}
	}
	if len(f.order) > maxMirrors {
		text := fmt.Sprintf("it names %d hosts, the limit is %d", len(f.Host), maxMirrors)
		return nil, configError(name, text)
	}
	for _, key := range append(slices.Clone(f.order), f.Server) {
		if _, err := (hostTable{}).place(key); key != "" && err != nil {
			return nil, configError(name, fmt.Sprintf(
				"line %d: a host is not http(s)://HOST[:PORT][/PATH]", lineOf(text, key)))
		}
	}
	return f, nil
}

// checkHosts refuses what would cost the decoder too much. Texts and comments count like all else.
func checkHosts(name string, text []byte) error {
	if len(text) > maxHostsFile {
		return configError(name,
			fmt.Sprintf("it has %d bytes, the limit is %d", len(text), maxHostsFile))
	}
	n, depth, dots := 1, 0, 0
	for _, c := range text {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case '.':
			dots++
		case '\n':
			n, dots = n+1, 0
		}
		if depth > maxHostsDepth || dots > maxHostsDots {
			return configError(name, fmt.Sprintf(
				"line %d: more than %d brackets are open, or it has more than %d dots",
				n, maxHostsDepth, maxHostsDots))
		}
	}
	return nil
}

// tomlError says where a file is broken. What stands there may be a secret, so only messages of
// ours are passed on.
func tomlError(name string, err error) error {
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		// A value of the wrong type: "toml: line 3 (last key "x"): incompatible types: TOML value
		// has type …"
		return configError(name, clip(strings.TrimPrefix(err.Error(), "toml: "), maxText))
	}
	text := "this is not TOML"
	if own, ok := strings.CutPrefix(parse.Message, hostsPrefix); ok {
		text = own
	}
	return configError(name, fmt.Sprintf("line %d: %s", parse.Position.Line, text))
}

// lineOf finds the line of a key or a host for a message, 1 when it is not found.
func lineOf(text []byte, key string) int {
	n, quoted := 0, strconv.Quote(key)
	for line := range strings.Lines(string(text)) {
		n++
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if !strings.HasPrefix(name, "#") &&
			(strings.Contains(name, key) || strings.Contains(value, quoted)) {
			return n
		}
	}
	return 1
}

// place reads a host's key into an endpoint that has only a place yet.
func (t hostTable) place(key string) (*endpoint, error) {
	if !strings.HasPrefix(key, "http") {
		key = "https://" + key
	}
	u, err := url.Parse(key)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, ErrConfig
	}
	host, err := ref.CleanHost("", u.Host)
	if err != nil {
		return nil, ErrConfig
	}
	if host == ref.DockerHub {
		host = ref.DockerAPI
	}
	e := &endpoint{host: host, path: path.Clean("/" + u.Path)}
	e.scheme, e.named = u.Scheme, true
	if !strings.HasSuffix(e.path, "/v2") && !t.OverridePath {
		e.path += "/v2"
	}
	e.path = strings.TrimSuffix(path.Clean(e.path), "/")
	return e, nil
}

// fill adds to an endpoint what the table says of it.
func (t hostTable) fill(e *endpoint) {
	e.can, e.header, e.open = capability(t.Capabilities), http.Header(t.Header), t.SkipVerify
	if e.can == 0 {
		e.can = canAll
	}
}

// certs returns the table's certificates; their names are relative to dir.
func (t hostTable) certs(dir string) certs {
	abs := func(name string) string {
		if name == "" || filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(dir, name)
	}
	c := certs{open: t.SkipVerify}
	for _, name := range t.CA {
		c.roots = append(c.roots, abs(name))
	}
	for _, p := range t.Client {
		c.clients = append(c.clients, keyPair{abs(p.cert), abs(p.key)})
	}
	return c
}

// hostsPrefix marks messages of ours among the parser's, which may quote values.
const hostsPrefix = "hosts.toml: "

func tomlRefuse(text string) error { return errors.New(hostsPrefix + text) }

type capabilities capability

func (c *capabilities) UnmarshalTOML(v any) error {
	names, err := texts(v)
	if err != nil {
		return tomlRefuse("capabilities are a list of \"pull\", \"resolve\" and \"push\"")
	}
	for _, name := range names {
		switch strings.ToLower(name) {
		case "pull":
			*c |= capabilities(canPull)
		case "resolve":
			*c |= capabilities(canResolve)
		case "push":
			*c |= capabilities(canPush)
		default:
			return tomlRefuse(safetext.Quote(name, 40) +
				` is not one of the capabilities "pull", "resolve" and "push"`)
		}
	}
	return nil
}

type fileNames []string

func (f *fileNames) UnmarshalTOML(v any) error {
	if s, ok := v.(string); ok {
		v = []any{s}
	}
	names, err := texts(v)
	if err != nil || slices.Contains(names, "") {
		return tomlRefuse("ca is a file's name or a list of them")
	}
	*f = names
	return nil
}

type pairNames []keyPair

func (p *pairNames) UnmarshalTOML(v any) error {
	if s, ok := v.(string); ok {
		v = []any{s}
	}
	list, ok := v.([]any)
	for _, one := range list {
		if s, isText := one.(string); isText {
			one = []any{s}
		}
		names, err := texts(one)
		if err != nil || len(names) < 1 || len(names) > 2 || names[0] == "" {
			ok = false
			break
		}
		*p = append(*p, keyPair{cert: names[0]})
		if len(names) == 2 {
			(*p)[len(*p)-1].key = names[1]
		}
	}
	if !ok {
		return tomlRefuse(
			"client is a file's name, a list of them, or a list of [certificate, key]")
	}
	return nil
}

type headerTable http.Header

func (h *headerTable) UnmarshalTOML(v any) error {
	table, ok := v.(map[string]any)
	if !ok {
		return tomlRefuse("header is a table")
	}
	*h = headerTable{}
	for name, value := range table {
		if s, isText := value.(string); isText {
			value = []any{s}
		}
		values, err := texts(value)
		if err != nil {
			return tomlRefuse("a header's value is a text or a list of them")
		}
		(*h)[http.CanonicalHeaderKey(name)] = values
	}
	return nil
}

type tomlDuration time.Duration

func (d *tomlDuration) UnmarshalTOML(v any) error {
	s, _ := v.(string)
	n, err := time.ParseDuration(s)
	if err != nil || n <= 0 {
		return tomlRefuse("dial_timeout is a time such as \"3s\"")
	}
	*d = tomlDuration(n)
	return nil
}

// texts reads a list of texts.
func texts(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, os.ErrInvalid
	}
	var out []string
	for _, one := range list {
		s, ok := one.(string)
		if !ok {
			return nil, os.ErrInvalid
		}
		out = append(out, s)
	}
	return out, nil
}
