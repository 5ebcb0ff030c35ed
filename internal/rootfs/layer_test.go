package rootfs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
)

// entry is a line of a tar archive in short: "dir/", "file=contents",
// "link->target" for a symbolic link, "link=>target" for a hard one.
func archive(t testing.TB, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Mode: 0o644, Format: tar.FormatPAX, ModTime: epoch}
		body := ""
		switch {
		case strings.HasSuffix(e, "/"):
			h.Name, h.Typeflag, h.Mode = e, tar.TypeDir, 0o755
		case strings.Contains(e, "->"):
			h.Name, h.Linkname, _ = strings.Cut(e, "->")
			h.Typeflag = tar.TypeSymlink
		case strings.Contains(e, "=>"):
			h.Name, h.Linkname, _ = strings.Cut(e, "=>")
			h.Typeflag = tar.TypeLink
		default:
			h.Name, body, _ = strings.Cut(e, "=")
			h.Typeflag, h.Size = tar.TypeReg, int64(len(body))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func emptyTree(t testing.TB) *tree {
	t.Helper()
	s, err := newSpool(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return newTree(s)
}

// show returns the tree in the notation of archive; hard links show their contents.
func show(t *testing.T, tr *tree) []string {
	t.Helper()
	var lines []string
	err := tr.each(func(name string, n *node) error {
		switch n.kind {
		case tar.TypeDir:
			name += "/"
		case tar.TypeSymlink:
			name += "->" + n.link
		case tar.TypeReg:
			r, err := tr.open(n)
			if err != nil {
				return err
			}
			data, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			name += "=" + string(data)
		}
		lines = append(lines, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestLayers(t *testing.T) {
	for name, c := range map[string]struct {
		layers [][]string
		want   []string
	}{
		"later wins":                          {[][]string{{"a=1", "b=1"}, {"a=2"}}, []string{"a=2", "b=1"}},
		"whiteout":                            {[][]string{{"d/", "d/a=1", "d/b=1"}, {"d/.wh.a"}}, []string{"d/", "d/b=1"}},
		"whiteout of a directory":             {[][]string{{"d/", "d/e/", "d/e/a=1"}, {".wh.d"}}, nil},
		"whiteout before what replaces it":    {[][]string{{"d/", "d/a=1"}, {".wh.d", "d/", "d/b=2"}}, []string{"d/", "d/b=2"}},
		"whiteout behind what replaces it":    {[][]string{{"d/", "d/a=1"}, {"d/", "d/b=2", ".wh.d"}}, []string{"d/", "d/b=2"}},
		"opaque directory":                    {[][]string{{"d/", "d/a=1", "d/e/", "d/e/f=1"}, {"d/", "d/.wh..wh..opq", "d/b=2"}}, []string{"d/", "d/b=2"}},
		"opaque directory, said last":         {[][]string{{"d/", "d/a=1"}, {"d/", "d/b=2", "d/.wh..wh..opq"}}, []string{"d/", "d/b=2"}},
		"whiteout of nothing":                 {[][]string{{"a=1"}, {"x/.wh.b", ".wh.c"}}, []string{"a=1"}},
		"others' marks":                       {[][]string{{"a=1"}, {".wh..wh.plnk"}}, []string{"a=1"}},
		"a file becomes a directory":          {[][]string{{"a=1"}, {"a/", "a/b=2"}}, []string{"a/", "a/b=2"}},
		"a file becomes one without being so": {[][]string{{"a=1"}, {"a/b=2"}}, []string{"a/", "a/b=2"}},
		"a directory becomes a file":          {[][]string{{"a/", "a/b=1"}, {"a=2"}}, []string{"a=2"}},
		"a directory becomes a link":          {[][]string{{"a/", "a/b=1"}, {"a->c"}}, []string{"a->c"}},
		"a link becomes a directory":          {[][]string{{"a->b", "b/", "b/x=1"}, {"a/", "a/y=2"}}, []string{"a/", "a/y=2", "b/", "b/x=1"}},
		"through a link":                      {[][]string{{"usr/", "usr/lib/", "lib->usr/lib"}, {"lib/x=1"}}, []string{"lib->usr/lib", "usr/", "usr/lib/", "usr/lib/x=1"}},
		"through a link that is absolute":     {[][]string{{"usr/", "a/", "a/l->/usr"}, {"a/l/x=1"}}, []string{"a/", "a/l->/usr", "usr/", "usr/x=1"}},
		"through a link to above":             {[][]string{{"a/", "a/l->../../../etc"}, {"a/l/x=1"}}, []string{"a/", "a/l->../../../etc", "etc/", "etc/x=1"}},
		"whiteout through a link":             {[][]string{{"usr/", "usr/x=1", "l->usr"}, {"l/.wh.x"}}, []string{"l->usr", "usr/"}},
		"names that lead out":                 {[][]string{{"../../a=1", "/b=1", "x/../../c=1"}}, []string{"a=1", "b=1", "c=1"}},
		"hard links":                          {[][]string{{"a=1", "b=>a"}, {".wh.a"}}, []string{"b=1"}},
		"hard link to a lower layer":          {[][]string{{"a=1"}, {"b=>a"}}, []string{"a=1", "b=1"}},
		"hard link to what another one hides": {[][]string{{"a=1", "b=>a"}, {"a=2"}}, []string{"a=2", "b=1"}},
		"hard link over a lower file":         {[][]string{{"a=1", "b=0"}, {"b=>a"}}, []string{"a=1", "b=1"}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := emptyTree(t)
			for _, layer := range c.layers {
				if err := tr.addLayer(t.Context(), bytes.NewReader(archive(t, layer...))); err != nil {
					t.Fatal(err)
				}
			}
			if got := show(t, tr); !slices.Equal(got, c.want) {
				t.Errorf("tree is\n  %q, want\n  %q", got, c.want)
			}
		})
	}
}

func TestBadLayersAreRefused(t *testing.T) {
	long := strings.Repeat("x", maxName+1)
	deep := strings.Repeat("d/", maxDepth) + "d/f=1"
	for name, c := range map[string]struct {
		entries []string
		want    string
	}{
		"links in circles":    {[]string{"a->b", "b->a", "a/x=1"}, "too many symbolic links"},
		"hard link to air":    {[]string{"a=>b"}, "which is not there"},
		"hard link to itself": {[]string{"a=>a"}, "which is not there"},
		"hard link to a dir":  {[]string{"d/", "a=>d"}, "the directory"},
		"long name":           {[]string{long + "=1"}, "longer than"},
		"deep":                {[]string{deep}, "directories deep"},
		"root as a file":      {[]string{".=1"}, "is a directory"},
	} {
		err := emptyTree(t).addLayer(t.Context(), bytes.NewReader(archive(t, c.entries...)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
	good := archive(t, "a=123")
	if err := emptyTree(t).addLayer(t.Context(), bytes.NewReader(good[:514])); err == nil {
		t.Error("an archive that is cut off was taken")
	}
}

// FuzzLayers adds layers of any bytes and of any names to a tree; what comes of
// it must be a file system without faults, if it comes.
func FuzzLayers(f *testing.F) {
	f.Add("a=1\nb->a\nd/\nd/c=>a", ".wh.d\nb/x=2", []byte{})
	f.Add("d/\nd/x=1", "d/.wh..wh..opq\nd/y->/", archive(f, "a=1", "d/", "l->d"))
	f.Fuzz(func(t *testing.T, lower, upper string, raw []byte) {
		tr := emptyTree(t)
		for _, layer := range []string{lower, upper} {
			var entries []string
			for line := range strings.Lines(layer) {
				if line = strings.TrimSpace(line); line != "" && !strings.ContainsRune(line, 0) && len(line) < 2000 {
					entries = append(entries, line)
				}
			}
			if err := tr.addLayer(t.Context(), bytes.NewReader(archiveOf(entries))); err != nil {
				return
			}
		}
		if err := tr.addLayer(t.Context(), bytes.NewReader(raw)); err != nil {
			return
		}
		first, second := names(tr), names(tr)
		if !maps.Equal(first, second) {
			t.Error("the tree differs from itself")
		}
		var b bytes.Buffer
		if err := tr.writeTar(t.Context(), &b, func(int64) {}); err != nil {
			return // what tar cannot say
		}
		again := emptyTree(t)
		if err := again.addLayer(t.Context(), &b); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		for name := range first {
			if n := again.find(name, false); n == nil && !strings.Contains(name, whiteout) {
				t.Errorf("%q got lost", name)
			}
		}
	})
}

func archiveOf(entries []string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if name, target, ok := strings.Cut(e, "->"); ok {
			h.Name, h.Linkname, h.Typeflag = name, target, tar.TypeSymlink
		} else if name, target, ok := strings.Cut(e, "=>"); ok {
			h.Name, h.Linkname, h.Typeflag = name, target, tar.TypeLink
		} else if strings.HasSuffix(e, "/") {
			h.Typeflag = tar.TypeDir
		}
		_ = w.WriteHeader(h) // what cannot be said is left out
	}
	_ = w.Close()
	return b.Bytes()
}

func names(tr *tree) map[string]string {
	found := map[string]string{}
	_ = tr.each(func(name string, n *node) error { found[name] = fmt.Sprint(n.kind); return nil })
	return found
}
