package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// room is one package of the product, parsed and with types, without its tests.
type room struct {
	name  string // the path below the module
	set   *token.FileSet
	files []*ast.File
	types *types.Package
	text  map[string]string // of each file, by its base name
}

// listed is what `go list` says of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

// list lists the product's packages and all that they import, with the export data that the
// compiler keeps in the build cache: types come from there, without a dependency of the tests.
var list = sync.OnceValues(func() (map[string]listed, error) {
	what := "-json=ImportPath,Dir,Export,GoFiles"
	cmd := exec.Command("go", "list", "-deps", "-export", what, "./...")
	cmd.Dir, cmd.Stderr = "../..", os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	all := map[string]listed{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all[p.ImportPath] = p
	}
})

// load reads a package of files.
func load(t *testing.T, name string, files []string) *room {
	t.Helper()
	all, err := list()
	if err != nil {
		t.Fatal(err)
	}
	r := &room{name: name, set: token.NewFileSet(), text: map[string]string{}}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(r.set, path, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		r.files = append(r.files, f)
		r.text[filepath.Base(path)] = string(text)
	}
	open := func(path string) (io.ReadCloser, error) { return os.Open(all[path].Export) }
	conf := types.Config{Importer: importer.ForCompiler(r.set, "gc", open)}
	if r.types, err = conf.Check(name, r.set, r.files, nil); err != nil {
		t.Fatal(err)
	}
	return r
}

// rooms loads all packages of the product.
func rooms(t *testing.T) (all []*room) {
	t.Helper()
	packages, err := list()
	if err != nil {
		t.Fatal(err)
	}
	for path, p := range packages {
		if name, ours := strings.CutPrefix(path, module+"/"); ours {
			var files []string
			for _, f := range p.GoFiles {
				files = append(files, filepath.Join(p.Dir, f))
			}
			all = append(all, load(t, name, files))
		}
	}
	return all
}
