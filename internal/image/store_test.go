package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nex/internal/nextest"
	"nex/internal/rootfs"
)

// small says how to build an image that needs no kernel of anybody's.
func small(t *testing.T) Options {
	t.Helper()
	return Options{KernelDir: kernelTree(t, usualModules), Init: []byte("first program"), Agent: nextest.StaticAgent(t)}
}

func TestStore(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "images"))
	if images, others, err := s.List(); err != nil || len(images)+len(others) > 0 {
		t.Errorf("an empty store has %v (%v)", images, err)
	}
	if _, err := s.Get("default"); !errors.Is(err, ErrNoImage) {
		t.Errorf("an image that is not there: %v", err)
	}
	o := small(t)
	for _, name := range []string{"one", "two", "one"} { // the last one over the first
		if _, err := s.Build(t.Context(), name, o); err != nil {
			t.Fatal(err)
		}
	}
	o.Init = []byte("another first program")
	if _, err := s.Build(t.Context(), "three", o); err != nil {
		t.Fatal(err)
	}
	images, _, err := s.List()
	if err != nil || len(images) != 3 {
		t.Fatalf("the store has %v (%v)", images, err)
	}
	if p, _, err := s.Prune(); err != nil || len(p.Files) > 0 {
		t.Errorf("pruned %v (%v), and all of it is used", p, err)
	}
	for _, name := range []string{"one", "three"} {
		if err := s.Remove(name); err != nil {
			t.Error(err)
		}
	}
	p, _, err := s.Prune()
	if want := images[1].Files[Initramfs].SHA256; err != nil || len(p.Files) != 1 || p.Files[0] != want { // of three
		t.Errorf("pruned %v (%v), want %s alone", p, err, want)
	}
	if _, err := Verify(t.Context(), s.Dir("two")); err != nil {
		t.Errorf("what is left: %v", err)
	}
	for _, name := range []string{"", ".blobs", "../x", "A", "a/b"} {
		if _, err := s.Build(t.Context(), name, o); err == nil {
			t.Errorf("built an image with the name %q", name)
		}
	}
}

func TestVerifyFindsChanges(t *testing.T) {
	s := Open(t.TempDir())
	if _, err := s.Build(t.Context(), "x", small(t)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.Dir("x"), Rootfs)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("changed"), 100_000); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.Dir("x"), Kernel)); err != nil {
		t.Fatal(err)
	}
	_, err = Verify(t.Context(), s.Dir("x"))
	if err == nil || !strings.Contains(err.Error(), Rootfs+" has changed") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("verified: %v", err)
	}
	if _, err := s.Build(t.Context(), "x", small(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), s.Dir("x")); err != nil {
		t.Errorf("built again: %v", err)
	}
}

// TestOthersFilesStay shows that nothing is removed that the store did not make.
func TestOthersFilesStay(t *testing.T) {
	s := Open(t.TempDir())
	o := small(t)
	if _, err := s.Build(t.Context(), "x", o); err != nil {
		t.Fatal(err)
	}
	mine := []string{filepath.Join(s.Dir("x"), "notes"), filepath.Join(s.dir, blobs, "notes"), filepath.Join(s.dir, "directory", "notes")}
	for _, path := range mine {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove("x"); err == nil {
		t.Error("removed a directory with something else in it")
	}
	for _, name := range []string{"x", "directory"} {
		if _, err := s.Build(t.Context(), name, o); err == nil {
			t.Errorf("replaced the directory %s, in which something else is", name)
		}
	}
	if p, others, err := s.Prune(); err != nil || len(p.Files) > 0 || len(others) != 1 {
		t.Errorf("pruned %v beside %v (%v)", p, others, err)
	}
	if _, err := Verify(t.Context(), s.Dir("x")); err != nil {
		t.Errorf("the image that was not removed: %v", err)
	}
	for _, path := range mine {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

// TestBrokenImages: what is no image, or none any more, is told of and stands in the way of
// nothing; an image that is built under its name takes its place.
func TestBrokenImages(t *testing.T) {
	s := Open(t.TempDir())
	o := small(t)
	for _, name := range []string{"good", "half", "old"} {
		if _, err := s.Build(t.Context(), name, o); err != nil {
			t.Fatal(err)
		}
	}
	old := filepath.Join(s.Dir("old"), Manifest)
	if err := errors.Join(
		os.Remove(filepath.Join(s.Dir("half"), Manifest)), os.Chmod(old, 0o600), os.WriteFile(old, []byte(`{"format": 7}`), 0o600),
		os.Mkdir(s.Dir("foreign"), 0o700), os.WriteFile(filepath.Join(s.Dir("foreign"), "notes"), nil, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	images, others, err := s.List()
	if err != nil || len(images) != 1 || len(others) != 3 {
		t.Fatalf("the store has %v and %v (%v)", images, others, err)
	}
	for i, want := range []string{"foreign is no image: it has no image.json", "half is no image: it has no image.json", "format 7"} {
		if got := others[i].String(); !strings.Contains(got, want) {
			t.Errorf("said %s, want %s", got, want)
		}
	}
	if err := s.Remove("good"); err != nil {
		t.Fatal(err)
	}
	if p, others, err := s.Prune(); err != nil || len(p.Files) > 0 || len(others) != 3 { // what half and old have is still theirs
		t.Errorf("pruned %v beside %v (%v)", p, others, err)
	}
	if _, err := os.Stat(filepath.Join(s.Dir("half"), Kernel)); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"half", "old"} {
		if _, err := s.Build(t.Context(), name, o); err != nil {
			t.Error(err)
		}
		if _, err := Verify(t.Context(), s.Dir(name)); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(filepath.Join(s.Dir("half"), Manifest)); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("half"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("foreign"); err == nil {
		t.Error("removed what is somebody else's")
	}
	if err := s.Remove("none"); !errors.Is(err, ErrNoImage) {
		t.Errorf("removed what is not there: %v", err)
	}
}

func TestFailedBuildsLeaveNothing(t *testing.T) {
	s := Open(t.TempDir())
	o := small(t)
	if _, err := s.Build(t.Context(), "x", o); err != nil {
		t.Fatal(err)
	}
	o.Agent = "/nowhere"
	if _, err := s.Build(t.Context(), "x", o); err == nil {
		t.Fatal("built with no agent")
	}
	left, err := filepath.Glob(filepath.Join(s.dir, building+"*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left %v (%v)", left, err)
	}
	if _, err := Verify(t.Context(), s.Dir("x")); err != nil {
		t.Errorf("the image that was there: %v", err)
	}
}

func TestExport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wd")
	for range 2 { // over what is there
		if _, err := Export(t.Context(), dir, small(t)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Verify(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
		t.Errorf("the directory has %v (%v)", entries, err)
	}
}

func TestImagesOfGivenFileSystems(t *testing.T) {
	o := small(t)
	o.Rootfs = filepath.Join(t.TempDir(), "rootfs.ext4.gz")
	made, err := rootfs.Build(t.Context(), rootfs.Options{Agent: o.Agent, AgentVersion: "1.2", Size: 40 << 20, Output: o.Rootfs})
	if err != nil {
		t.Fatal(err)
	}
	s := Open(t.TempDir())
	o.Agent = ""
	i, err := s.Build(t.Context(), "x", o)
	if err != nil || i.Files[Rootfs].Size != made.Size || i.Agent.Version != "1.2" || i.Agent.SHA256 == "" || i.Rootfs.Source != rootfs.Scratch {
		t.Errorf("built %+v (%v)", i, err)
	}
	if _, err := rootfs.Inspect(t.Context(), filepath.Join(s.Dir("x"), Rootfs)); err != nil {
		t.Errorf("what it has: %v", err)
	}
	o.Rootfs = filepath.Join(t.TempDir(), "empty.ext4")
	if err := rootfs.Empty(t.Context(), o.Rootfs, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Build(t.Context(), "y", o); !errors.Is(err, rootfs.ErrNoAgent) {
		t.Errorf("a file system without an agent: %v", err)
	}
}
