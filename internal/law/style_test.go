package law_test

import (
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

// maxLines is the most a file that is not a test may have; 400 are plenty.
const maxLines = 600

func TestFilesAreShort(t *testing.T) {
	for _, s := range tree(t) {
		if !s.test && s.lines > maxLines {
			t.Errorf("%s has %d lines, more than %d: split it by what its parts are about", s.path, s.lines, maxLines)
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	docs := map[string]string{}
	for _, s := range tree(t) {
		if !s.test {
			docs[s.pkg] += s.ast.Doc.Text()
		}
	}
	for pkg, doc := range docs {
		if doc == "" {
			t.Errorf("package %s has no package comment: say what it owns, what it promises about concurrency, what it never does", pkg)
		}
	}
}

// rule bans calls, as in "fmt.Print", which stands for fmt.Println as well.
type rule struct {
	call   string
	why    string
	exempt func(source) bool // files in which the call is fine
}

var rules = []rule{
	{"time.Sleep", "wait for the event with a deadline; tests of time run in a testing/synctest bubble", maySleep},
	{"fmt.Print", "return values, or use the logger that was passed in; only commands print", isOutside},
	{"os.Exit", "return an error; only main ends the process", isOutside},
	{"log.Fatal", "return an error; only main ends the process", isOutside},
	{"context.WithValue", "pass what a function needs as a parameter", func(source) bool { return false }},
}

// isProgram reports whether s is part of a command, an example or the benchmark.
func isProgram(s source) bool {
	return strings.HasPrefix(s.pkg, "cmd/") || strings.HasPrefix(s.pkg, "examples/") || s.pkg == "bench"
}

// isOutside reports whether s is not part of what programs are made of: tests
// and their support have examples that print, and a TestMain that ends the
// process.
func isOutside(s source) bool { return isProgram(s) || s.test || s.pkg == "nextest" }

// maySleep reports whether s is a program, or a test in whose bubbles sleeping
// takes no time and waits for nothing real.
func maySleep(s source) bool {
	return isProgram(s) || s.test && slices.Contains(s.imports(), "testing/synctest")
}

func TestForbiddenCalls(t *testing.T) {
	for _, s := range tree(t) {
		for _, r := range rules {
			if r.exempt(s) {
				continue
			}
			for _, where := range calls(s, r.call) {
				t.Errorf("%s: no %s here: %s", where, r.call, r.why)
			}
		}
	}
}

// calls returns the places where s names a function of a package of the
// standard library that begins like call.
func calls(s source, call string) []string {
	from, function, _ := strings.Cut(call, ".")
	packageName := ""
	for i, imported := range s.imports() {
		if imported == from {
			packageName = path.Base(imported)
			if n := s.ast.Imports[i].Name; n != nil {
				packageName = n.Name
			}
		}
	}
	var places []string
	ast.Inspect(s.ast, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && strings.HasPrefix(sel.Sel.Name, function) {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == packageName {
				places = append(places, s.fset.Position(n.Pos()).String())
			}
		}
		return true
	})
	return places
}
