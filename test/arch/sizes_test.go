package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The limits that keep a file readable in one sitting and a function on one
// screen; see the house rules in ARCHITECTURE.md.
const (
	maxFileLines   = 350
	maxMedianFile  = 150
	maxFuncLines   = 70
	maxFuncP90     = 40
	maxParams      = 5
	maxIfaceMethod = 3
)

// TestSizes prints the numbers of each room and fails where one is above its
// limit. Test files are not counted.
func TestSizes(t *testing.T) {
	for room := range arrows {
		t.Run(room, func(t *testing.T) {
			set := token.NewFileSet()
			names, err := filepath.Glob(filepath.Join("../..", room, "*.go"))
			if err != nil {
				t.Fatal(err)
			}
			var files, funcs []int
			documented := false
			for _, name := range names {
				if strings.HasSuffix(name, "_test.go") {
					continue
				}
				f, err := parser.ParseFile(set, name, nil, parser.ParseComments)
				if err != nil {
					t.Fatal(err)
				}
				documented = documented || f.Doc != nil
				lines := set.File(f.Pos()).LineCount()
				files = append(files, lines)
				if lines > maxFileLines {
					t.Errorf("%s: %d lines, more than %d", name, lines, maxFileLines)
				}
				funcs = append(funcs, checkFile(t, set, f)...)
			}
			if len(files) == 0 {
				t.Fatal("no files")
			}
			if !documented {
				t.Error("the package opens without a doc")
			}
			slices.Sort(files)
			slices.Sort(funcs)
			total := 0
			for _, n := range files {
				total += n
			}
			median, p90 := files[len(files)/2], funcs[len(funcs)*9/10]
			t.Logf("%d files, %d lines; lines a file: median %d, most %d; lines a function: median %d, p90 %d, most %d",
				len(files), total, median, files[len(files)-1], funcs[len(funcs)/2], p90, funcs[len(funcs)-1])
			if len(files) > 4 && median > maxMedianFile+maxMedianFile/4 {
				t.Errorf("median file has %d lines, far more than %d", median, maxMedianFile)
			}
			if p90 > maxFuncP90 {
				t.Errorf("p90 of functions is %d lines, more than %d", p90, maxFuncP90)
			}
		})
	}
}

// checkFile returns the lengths of a file's functions and checks shapes.
func checkFile(t *testing.T, set *token.FileSet, f *ast.File) []int {
	var lengths []int
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			pos, end := set.Position(n.Pos()), set.Position(n.End())
			length := end.Line - pos.Line + 1
			lengths = append(lengths, length)
			if length > maxFuncLines {
				t.Errorf("%s: %s has %d lines, more than %d", pos, n.Name.Name, length, maxFuncLines)
			}
			if n := n.Type.Params.NumFields(); n > maxParams {
				t.Errorf("%s: %d parameters, more than %d", pos, n, maxParams)
			}
			if n.Name.IsExported() && n.Recv == nil && n.Doc == nil && f.Name.Name != "main" {
				t.Errorf("%s: exported %s has no doc", pos, n.Name.Name)
			}
		case *ast.InterfaceType:
			if len(n.Methods.List) > maxIfaceMethod {
				t.Errorf("%s: %d methods, more than %d", set.Position(n.Pos()), len(n.Methods.List),
					maxIfaceMethod)
			}
		}
		return true
	})
	return lengths
}
