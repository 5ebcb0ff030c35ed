package law_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// module is the path of the module whose law this is.
const module = "nex"

// source is one Go file of the module.
type source struct {
	path  string // relative to the module root, with slashes
	pkg   string // its package as the law names it, see name
	test  bool
	lines int
	fset  *token.FileSet
	ast   *ast.File
}

// imports returns the import paths of the file.
func (s source) imports() []string {
	var paths []string
	for _, spec := range s.ast.Imports {
		p, _ := strconv.Unquote(spec.Path.Value) // parsed, so well quoted
		paths = append(paths, p)
	}
	return paths
}

// name returns what the law calls the package in a directory or with an import
// path, both relative to the module: "nex" at the root, and packages below
// internal by the rest of their path.
func name(rel string) string {
	if rel == "." || rel == "" {
		return module
	}
	return strings.TrimPrefix(rel, "internal/")
}

// local returns the law's name for an import path, false for other modules.
func local(importPath string) (string, bool) {
	rel, ok := strings.CutPrefix(importPath+"/", module+"/")
	return name(strings.TrimSuffix(rel, "/")), ok
}

// root returns the directory of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	t.Fatalf("no go.mod at or above the working directory (%v)", err)
	return ""
}

// tree parses all Go files of the module, whatever their build tags. Modules
// of their own, testdata and hidden directories are not part of it.
func tree(t *testing.T) []source {
	t.Helper()
	top := root(t)
	var found []source
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != top && foreign(p, d.Name()):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(p) != ".go":
			return nil
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		s, err := parse(p, filepath.ToSlash(rel))
		found = append(found, s)
		return err
	})
	if err != nil || len(found) == 0 {
		t.Fatalf("read the module at %s: %v, %d files", top, err, len(found))
	}
	return found
}

// foreign reports whether the directory at p is not part of the module.
func foreign(p, name string) bool {
	_, err := os.Stat(filepath.Join(p, "go.mod"))
	return err == nil || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
}

func parse(file, rel string) (source, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return source{}, err
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, rel, text, parser.ParseComments|parser.SkipObjectResolution)
	return source{
		path: rel, pkg: name(path.Dir(rel)), test: strings.HasSuffix(rel, "_test.go"),
		lines: strings.Count(string(text), "\n"), fset: fset, ast: f,
	}, err
}
