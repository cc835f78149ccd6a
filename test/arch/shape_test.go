package arch

import (
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// The limits that keep a type graspable, a package readable alone and a line on the screen.
const (
	maxMethods     = 25 // of a type, promoted ones included
	maxMethodFiles = 3  // files in which the methods of a type stand
	maxFields      = 10 // of a struct that is exported or holds options
	minMethodFile  = 45 // lines of a file that holds only methods of types of other files
	maxColumns     = 100
	tabColumns     = 4
)

// maxLines is how many lines of Go a package may have, without tests.
func maxLines(room string) int {
	switch room {
	case "fetch/registry":
		return 5000 // the protocol has that many corners
	case "cmd/pfmount":
		return 2700
	}
	return 2600
}

// rule is what a guard looks at.
type rule string

const (
	methods     rule = "more than 25 methods"
	methodFiles rule = "methods in more than 3 files"
	fields      rule = "more than 10 fields"
	methodFile  rule = "a file under 45 lines with nothing but methods of types of other files"
	lines       rule = "too many lines"
	columns     rule = "lines over 100 columns"
)

// violation is a rule that a package, a type ("fetch.Image") or a file ("fetch/crew.go") breaks.
type violation struct {
	subject string
	rule    rule
}

// TestShape fails where a package breaks a rule that notYet does not list, and where notYet lists
// what is not broken.
func TestShape(t *testing.T) {
	var all []violation
	for _, r := range rooms(t) {
		all = append(all, r.violations()...)
	}
	for _, complaint := range compare(all, notYet) {
		t.Error(complaint)
	}
}

// compare returns what is wrong where some violations are excused.
func compare(found, excused []violation) (complaints []string) {
	for _, v := range found {
		if !slices.Contains(excused, v) {
			complaints = append(complaints, v.subject+": "+string(v.rule))
		}
	}
	for i, v := range excused {
		if !slices.Contains(found, v) || slices.Contains(excused[:i], v) {
			complaints = append(complaints, v.subject+": take out of notYet: "+string(v.rule))
		}
	}
	return complaints
}

// violations checks a package by all rules.
func (r *room) violations() (all []violation) {
	total := 0
	for name, text := range r.text {
		total += strings.Count(text, "\n")
		for line := range strings.Lines(text) {
			line = strings.TrimRight(line, "\n")
			if utf8.RuneCountInString(line)+(tabColumns-1)*strings.Count(line, "\t") > maxColumns {
				if v := (violation{r.name, columns}); !slices.Contains(all, v) {
					all = append(all, v)
				}
			}
		}
		if r.onlyMethods(name) && strings.Count(text, "\n") < minMethodFile {
			all = append(all, violation{r.name + "/" + name, methodFile})
		}
	}
	if total > maxLines(r.name) {
		all = append(all, violation{r.name, lines})
	}
	for _, name := range r.types.Scope().Names() {
		if t, ok := r.types.Scope().Lookup(name).(*types.TypeName); ok && !t.IsAlias() {
			all = append(all, r.typeViolations(t)...)
		}
	}
	return all
}

func (r *room) typeViolations(t *types.TypeName) (all []violation) {
	subject := r.name + "." + t.Name()
	if types.IsInterface(t.Type()) { // has a limit of its own
		return nil
	}
	if r.methods(t) > maxMethods {
		all = append(all, violation{subject, methods})
	}
	files := map[string]bool{}
	if named, ok := t.Type().(*types.Named); ok {
		for m := range named.Methods() {
			files[r.set.Position(m.Pos()).Filename] = true
		}
	}
	if len(files) > maxMethodFiles {
		all = append(all, violation{subject, methodFiles})
	}
	s, ok := t.Type().Underlying().(*types.Struct)
	if ok && s.NumFields() > maxFields && (t.Exported() || holdsOptions(t.Name())) {
		all = append(all, violation{subject, fields})
	}
	return all
}

// holdsOptions says that a name is that of a struct of options.
func holdsOptions(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{"options", "opts", "config", "settings", "params"},
		func(end string) bool { return strings.HasSuffix(name, end) })
}

// rawFileSystem is the interface of FUSE's operations.
const rawFileSystem = "github.com/hanwen/go-fuse/v2/fuse.RawFileSystem"

// methods counts the methods of a type and of what it embeds, as far as its package can call them.
// The operations of FUSE do not count where a type embeds them.
func (r *room) methods(t *types.TypeName) (n int) {
	theirs := map[string]bool{}
	if s, ok := t.Type().Underlying().(*types.Struct); ok {
		for f := range s.Fields() {
			iface, isInterface := f.Type().Underlying().(*types.Interface)
			if f.Embedded() && isInterface && f.Type().String() == rawFileSystem {
				for m := range iface.Methods() {
					theirs[m.Name()] = true
				}
			}
		}
	}
	for m := range types.NewMethodSet(types.NewPointer(t.Type())).Methods() {
		if (m.Obj().Exported() || m.Obj().Pkg() == r.types) && !theirs[m.Obj().Name()] {
			n++
		}
	}
	return n
}

// onlyMethods says that a file declares methods of types of other files, and neither a type nor a
// function.
func (r *room) onlyMethods(name string) bool {
	found := false
	for _, f := range r.files {
		if filepath.Base(r.set.Position(f.Pos()).Filename) != name {
			continue
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					return false
				}
				found = true
			case *ast.GenDecl:
				if d.Tok == token.TYPE {
					return false
				}
			}
		}
	}
	return found
}
