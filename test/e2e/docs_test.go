package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// example is a fenced block of a document.
type example struct {
	doc  string
	line int
	info string // what follows the fence: "sh", "sh no-run: REASON", "ini", "text output"
	text string
}

func (x example) String() string { return fmt.Sprintf("%s:%d", x.doc, x.line) }

// documents lists the documents whose examples are run, as paths in the repository.
func documents(t *testing.T) []string {
	t.Helper()
	docs := []string{"README.md", "SECURITY.md"}
	found, err := filepath.Glob(filepath.Join(repoDir(t), "docs/*.md"))
	if err != nil || len(found) == 0 {
		t.Fatalf("docs/*.md: %d files, %v", len(found), err)
	}
	for _, path := range found {
		docs = append(docs, "docs/"+filepath.Base(path))
	}
	return docs
}

// examples parses the fenced blocks of a document. An indented block is an error: it would not run.
func examples(t *testing.T, doc string) (list []example) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repoDir(t), doc))
	if err != nil {
		t.Fatal(err)
	}
	inside, before := false, ""
	for i, line := range strings.Split(string(data), "\n") {
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && !inside:
			inside = true
			list = append(list, example{doc: doc, line: i + 1, info: info})
		case fence:
			inside = false
		case inside:
			list[len(list)-1].text += line + "\n"
		case before == "" && strings.HasPrefix(line, "    "):
			t.Errorf("%s:%d: an indented block; use a fence that names its kind", doc, i+1)
		}
		before = line
	}
	if inside {
		t.Errorf("%s: a block is not closed", doc)
	}
	return list
}

// notRun counts the blocks of each document that are marked "sh no-run".
var notRun = map[string]int{"docs/operating.md": 2, "docs/registries.md": 2}

// TestDocs runs the examples of each document as typed, in order, each in a shell of its own, as
// root in a checkout. A block that begins with "# /PATH" is the content of that file. A "text
// output" block is what the block before it prints, with … for what varies.
func TestDocs(t *testing.T) {
	t.Parallel()
	for _, doc := range documents(t) {
		t.Run(doc, func(t *testing.T) {
			t.Parallel()
			list := examples(t, doc)
			if len(list) == 0 {
				return
			}
			w := newWorkshop(t)
			skipped, stdout := 0, ""
			for _, x := range list {
				reason, noRun := strings.CutPrefix(x.info, "sh no-run: ")
				file := regexp.MustCompile(`^# (/\S+)\n`).FindStringSubmatch(x.text)
				switch {
				case noRun && reason != "":
					t.Logf("%v: not run: %s", x, reason)
					skipped++
				case x.info == "sh":
					stdout = w.run(x)
				case x.info == "text output":
					prints(t, x, stdout)
				case (x.info == "ini" || x.info == "toml") && file != nil:
					w.e.Sh(`mkdir -p "${1%/*}" && printf %s "$2" >"$1"`, file[1], x.text).Want(t, 0)
					if strings.HasPrefix(file[1], "/etc/pfmount/") {
						w.service(x)
					}
				case x.info != "text":
					t.Errorf("%v: unknown kind of block %q", x, x.info)
				}
			}
			if skipped != notRun[doc] {
				t.Errorf("%s: %d blocks are not run, want %d", doc, skipped, notRun[doc])
			}
			w.empty()
		})
	}
}

// prints fails the test unless stdout holds the lines of a "text output" block in this order.
func prints(t *testing.T, x example, stdout string) {
	t.Helper()
	var pattern strings.Builder
	pattern.WriteString(`(?ms)`)
	for _, line := range strings.Split(strings.TrimSpace(x.text), "\n") {
		if line == "…" {
			pattern.WriteString(`.*?`)
			continue
		}
		words := strings.ReplaceAll(regexp.QuoteMeta(line), "…", "[^\n]*")
		pattern.WriteString(`^` + words + "$\n")
	}
	if !regexp.MustCompile(pattern.String()).MatchString(stdout) {
		t.Errorf("%v: the block before it prints something else:\n%s", x, stdout)
	}
}

// workshop is a machine as the documents assume it: registries under their names, a checkout, and
// folders of its own where make install and mounts go. It lies in namespaces of its own.
type workshop struct {
	t   *testing.T
	e   *harness.Env
	net *harness.Net
}

// prepare makes the workshop's folders in its mount namespace. The checkout is writable, and what
// is written into it is forgotten.
const prepare = forgetMounts + `
repo=$1 bin=$2 spare=$HOME/spare
over() { mkdir -p "$spare/$3/up" "$spare/$3/work"
  mount -t overlay overlay -o "lowerdir=$1,upperdir=$spare/$3/up,workdir=$spare/$3/work" "$2"; }
mkdir "$spare" "$HOME/pfmount"
mount -t tmpfs none "$spare"
over "$repo" "$HOME/pfmount" repo
over /etc /etc etc
over /usr/local /usr/local local
over "$(readlink -f /sbin)" "$(readlink -f /sbin)" sbin
mount -t tmpfs none /mnt
mkdir -p /mnt/sess "$HOME/pfmount/bin"
cp "$bin" "$HOME/pfmount/bin/pfmount"
cp "$bin" /usr/local/bin/pfmount
for type in pfmount fuse.pfmount; do ln -sf /usr/local/bin/pfmount "/sbin/mount.$type"; done
echo secret >"$HOME/pfmount/password.txt"
cp "$3" "$HOME/pfmount/corp-ca.pem"
mkdir -p /etc/containerd/certs.d/ghcr.io
cp "$3" /etc/containerd/certs.d/ghcr.io/harbor-ca.pem`

func newWorkshop(t *testing.T) *workshop {
	t.Helper()
	w := &workshop{t: t, e: harness.New(t, "")}
	ca, err := faultreg.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	etc := w.e.MakeDir("etc")
	writeBelow(t, w.e, "etc/ssl/certs/ca-certificates.crt", ca.PEM, 0o644)
	w.net = harness.Names(t, map[string]string{
		"192.0.2.1": "ghcr.io", "192.0.2.2": "registry.corp", "192.0.2.3": "harbor.corp",
	}, etc)
	w.e.Prefix = w.net.Prefix()
	w.serve(ca)
	w.goTools()
	w.e.Sh(prepare, repoDir(t), w.e.Bin, etc+"/ssl/certs/ca-certificates.crt").Want(t, 0)
	t.Cleanup(func() { w.e.Sh("kill -9 " + w.pids() + " 2>/dev/null; true") })
	return w
}

// serve starts the registries that the documents name. registry.corp has a public repository, and
// others that want the password of the user me.
func (w *workshop) serve(ca *faultreg.Authority) {
	w.t.Helper()
	start := func(o faultreg.Options, name string) *faultreg.Server {
		o.Listen = func(addr string) (net.Listener, error) { return w.net.Listen(addr) }
		if name != "" {
			conf, err := ca.Server(name)
			if err != nil {
				w.t.Fatal(err)
			}
			o.TLS = conf
		}
		srv, err := faultreg.New(o)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { srv.Close() })
		return srv
	}
	img := harness.Fixture(w.t, "basic")
	hub := start(faultreg.Options{Addr: "192.0.2.1:443"}, "ghcr.io")
	push := func(srv *faultreg.Server, repo string) {
		if err := srv.Push(w.t.Context(), img, repo, "tag"); err != nil {
			w.t.Fatal(err)
		}
	}
	push(hub, "org/repo")
	start(faultreg.Options{Addr: "127.0.0.1:5000", Backend: hub.Backend()}, "")
	start(faultreg.Options{Addr: "127.0.0.1:30020", Backend: hub.Backend()}, "")
	start(faultreg.Options{Addr: "192.0.2.3:443", Backend: hub.Backend()}, "harbor.corp")
	guard, err := faultreg.Passwords(map[string]string{"me": "secret"}, w.t.TempDir())
	if err != nil {
		w.t.Fatal(err)
	}
	private := func(all http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/", guard(all))
		mux.Handle("/v2/public/", all)
		return mux
	}
	corp := start(faultreg.Options{Addr: "192.0.2.2:443", Wrap: private}, "registry.corp")
	push(corp, "org/repo")
	push(corp, "public/repo")
}

// goTools lets make find Go, and what it needs without the network.
func (w *workshop) goTools() {
	w.t.Helper()
	for _, name := range []string{"GOROOT", "GOMODCACHE", "GOCACHE"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			w.t.Fatal(err)
		}
		w.e.Set(name, strings.TrimSpace(string(out)))
		if name == "GOROOT" {
			w.e.Set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:"+
				strings.TrimSpace(string(out))+"/bin")
		}
	}
	w.e.Set("GOPROXY", "off")
	w.e.Set("GOFLAGS", "-buildvcs=false")
	// The binary under test is there already.
	w.e.Set("MAKEFLAGS", "-s -o build")
}

// run runs an example and gives what it prints.
func (w *workshop) run(x example) string {
	w.t.Helper()
	script := w.e.WriteFile("home/example.sh", []byte(x.text), 0o644)
	r := w.e.Sh(`cd "$HOME/pfmount" && bash -eu -o pipefail "$1"`, script)
	if r.Code != 0 {
		w.t.Errorf("%v: %s%v", x, x.text, r)
	}
	return r.Stdout
}

// service mounts with the settings of a pfmount@.service, as its ExecStart does, and unmounts.
func (w *workshop) service(x example) {
	w.t.Helper()
	setting := map[string]string{}
	for _, line := range strings.Split(x.text, "\n") {
		if name, value, ok := strings.Cut(line, "="); ok {
			setting[name] = value
		}
	}
	w.e.Sh(`pfmount $1 -- "$2" "$3"; ls -A "$3" | grep -q .; pfmount umount "$3"`,
		setting["OPTIONS"], setting["IMAGE"], setting["MOUNTPOINT"]).Want(w.t, 0)
}

// pids lists the processes of pfmount in the workshop.
func (w *workshop) pids() string {
	return strings.TrimSpace(w.e.Sh(`for p in $(pgrep 'pfmount|memfd'); do
  if [ "$(readlink /proc/$p/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ]; then echo $p; fi
done | paste -s -d ' '`).Stdout)
}

// empty fails the test unless the examples unmounted what they mounted.
func (w *workshop) empty() {
	w.t.Helper()
	left := w.e.Sh(`awk -v home="$HOME/" '
/ fuse.pfmount / && ($5 ~ "^/mnt/" || index($5, home) == 1)' /proc/self/mountinfo`).Stdout
	if left != "" {
		w.t.Fatalf("left mounted: %s", left)
	}
	gone := func() bool { return w.pids() == "" }
	harness.Eventually(w.t, harness.Limit, "end of the processes", gone)
}

// TestDocsLinks follows every relative link between the documents, headings included, and holds
// README to its size.
func TestDocsLinks(t *testing.T) {
	t.Parallel()
	const most = 7 << 10
	root := repoDir(t)
	docs := append(documents(t), "ARCHITECTURE.md", "CHANGELOG.md")
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	links := 0
	for _, doc := range docs {
		data, err := os.ReadFile(filepath.Join(root, doc))
		if err != nil {
			t.Fatal(err)
		}
		if doc == "README.md" && len(data) > most {
			t.Errorf("%s has %d bytes, the limit is %d: move text to docs", doc, len(data), most)
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			name, heading, _ := strings.Cut(m[1], "#")
			path := filepath.Join(root, filepath.Dir(doc), name)
			if name == "" {
				path = filepath.Join(root, doc)
			}
			target, err := os.ReadFile(path)
			if err != nil {
				t.Errorf("%s: link to %s: %v", doc, m[1], err)
			} else if heading != "" && !hasHeading(string(target), heading) {
				t.Errorf("%s: link to %s: no such heading", doc, m[1])
			}
		}
	}
	if links < 30 {
		t.Errorf("%d links found in %d documents", links, len(docs))
	}
}

// hasHeading looks for a heading by the name that GitHub gives it.
func hasHeading(text, name string) bool {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		slug := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(slug, " ", "-") == name {
			return true
		}
	}
	return false
}

// foreign are messages of the kernel and of the C library in the table of messages.
var foreign = []string{"transport endpoint is not connected", ": no such file or directory"}

// TestDocsMessages looks for each message of the troubleshooting table in the source; … stands for
// what varies.
func TestDocsMessages(t *testing.T) {
	t.Parallel()
	root := repoDir(t)
	var source strings.Builder
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if path == filepath.Join(root, "test") {
			return filepath.SkipDir
		}
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			data, err := os.ReadFile(path)
			source.Write(data)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(root, "docs/operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(data), "| message |")
	rows := regexp.MustCompile("(?m)^\\| `(.*?)` \\|").FindAllStringSubmatch(table, -1)
	if len(rows) < 25 {
		t.Errorf("%d messages found", len(rows))
	}
	// Long texts are joined of several literals.
	text := regexp.MustCompile(`"\s*\+\s*"`).ReplaceAllString(source.String(), "")
	for _, row := range rows {
		for _, part := range strings.Split(row[1], "…") {
			known := strings.Contains(text, strings.TrimSpace(part))
			if !known && !slices.Contains(foreign, part) {
				t.Errorf("no source has %q of the message %q", part, row[1])
			}
		}
	}
}
