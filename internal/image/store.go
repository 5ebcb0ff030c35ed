package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/gofrs/flock"
)

// DefaultName is the name of the image that nodes boot unless they are told of
// another.
const DefaultName = "default"

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// Directories of a store that are no images, which no name can be.
const (
	blobs    = ".blobs" // files of images by digest, to which those of images are hard links
	building = ".build-"
)

// Store keeps images in a directory, each in a directory of its own.
type Store struct{ dir string }

// Open returns the store in dir, which is made when something is added.
func Open(dir string) *Store { return &Store{dir: dir} }

// Dir returns the directory of an image.
func (s *Store) Dir(name string) string { return filepath.Join(s.dir, name) }

// ErrNoImage means that a store has no image of a name.
var ErrNoImage = errors.New("no such image")

// Get returns an image.
func (s *Store) Get(name string) (Image, error) {
	if !validName.MatchString(name) {
		return Image{}, badName(name)
	}
	i, err := Read(s.Dir(name))
	if errors.Is(err, os.ErrNotExist) {
		return Image{}, s.noImage(name)
	}
	i.Name = name
	return i, err
}

func badName(name string) error {
	return fmt.Errorf("%q cannot be an image's name (lower-case letters, digits, and . _ - between them)", name)
}

func (s *Store) noImage(name string) error {
	return fmt.Errorf("%w: %s in %s (nex image ls shows those that there are)", ErrNoImage, name, s.dir)
}

// Other is a directory in a store that cannot be read as an image.
type Other struct {
	Dir string
	Err error // why; [os.ErrNotExist] if nothing there says that it is an image
}

func (o Other) String() string {
	if errors.Is(o.Err, os.ErrNotExist) {
		return fmt.Sprintf("%s is no image: it has no %s, and is half an image or somebody else's", o.Dir, Manifest)
	}
	return fmt.Sprintf("%s is no image that can be used: %v", o.Dir, o.Err)
}

// List returns all images, by name, and what else there is under names of images.
func (s *Store) List() (images []Image, others []Other, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	for _, e := range entries {
		if !e.IsDir() || !validName.MatchString(e.Name()) {
			continue
		}
		i, err := Read(s.Dir(e.Name()))
		if err != nil {
			others = append(others, Other{s.Dir(e.Name()), err})
			continue
		}
		i.Name = e.Name()
		images = append(images, i)
	}
	return images, others, nil
}

// Build makes an image, and puts it in the place of one that had its name when it
// is whole.
func (s *Store) Build(ctx context.Context, name string, o Options) (Image, error) {
	if !validName.MatchString(name) {
		return Image{}, badName(name)
	}
	unlock, err := s.lock()
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	s.sweep()
	dir, err := os.MkdirTemp(s.dir, building)
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // is renamed, or of no use
	i, err := Build(ctx, dir, o)
	if err != nil {
		return Image{}, err
	}
	i.Name = name
	for _, part := range parts {
		if err := s.share(ctx, filepath.Join(dir, part), i.Files[part].SHA256); err != nil {
			return Image{}, err
		}
	}
	if err := syncDir(dir); err != nil {
		return Image{}, err
	}
	if err := s.replace(dir, name); err != nil {
		return Image{}, fmt.Errorf("put the image in place: %w", err)
	}
	return i, syncDir(s.dir)
}

// share makes a file one with the equal file that the store has, or keeps it for
// those that come, also in place of one that has changed since.
func (s *Store) share(ctx context.Context, path, digest string) error {
	if err := os.MkdirAll(filepath.Join(s.dir, blobs), 0o700); err != nil {
		return err
	}
	blob := filepath.Join(s.dir, blobs, digest)
	err := os.Link(path, blob)
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	if is, err := fileDigest(ctx, blob); err != nil {
		return err
	} else if is != digest {
		if err := os.Remove(blob); err != nil {
			return err
		}
		return os.Link(path, blob)
	}
	beside := path + ".shared"
	if err := os.Link(blob, beside); err != nil {
		return err
	}
	return os.Rename(beside, path)
}

// replace puts the directory of an image where its name says, also over one that was
// not finished or is of another format. Files of the image that was there live on for
// those that have them open.
func (s *Store) replace(dir, name string) error {
	if _, err := os.Lstat(s.Dir(name)); errors.Is(err, os.ErrNotExist) {
		return os.Rename(dir, s.Dir(name))
	}
	if err := onlyOurs(s.Dir(name)); err != nil {
		return err
	}
	if err := exchange(dir, s.Dir(name)); err != nil {
		return err
	}
	return removeImage(dir)
}

// Remove removes an image: its files, and its directory if nothing else is in it.
func (s *Store) Remove(name string) error {
	if !validName.MatchString(name) {
		return badName(name)
	}
	if _, err := os.Stat(s.Dir(name)); errors.Is(err, os.ErrNotExist) {
		return s.noImage(name)
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return removeImage(s.Dir(name))
}

// removeImage removes the files that an image is made of, what says so last. It
// removes nothing if something else is beside them.
func removeImage(dir string) error {
	if err := onlyOurs(dir); err != nil {
		return err
	}
	for _, name := range ours {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return os.Remove(dir)
}

// ours are the files that an image is made of.
var ours = append(slices.Clone(parts), Manifest)

// onlyOurs is an error if something else is in the directory of an image.
func onlyOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(ours, e.Name()) {
			return fmt.Errorf("%s is not an image's, and stays: move it elsewhere first", filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

// Pruned is what Prune removed.
type Pruned struct {
	Files []string `json:"files"` // by digest
	Bytes int64    `json:"bytes"`
}

// Prune removes the files that no image has any more. What others have that cannot be
// read as images they keep, and it is not counted.
func (s *Store) Prune() (Pruned, []Other, error) {
	p := Pruned{Files: []string{}}
	if _, err := os.Stat(s.dir); errors.Is(err, os.ErrNotExist) {
		return p, nil, nil
	}
	unlock, err := s.lock()
	if err != nil {
		return p, nil, err
	}
	defer unlock()
	s.sweep()
	images, others, err := s.List()
	if err != nil {
		return p, nil, err
	}
	used := map[string]bool{}
	for _, i := range images {
		for _, f := range i.Files {
			used[f.SHA256] = true
		}
	}
	kept := partsOf(others)
	entries, err := os.ReadDir(filepath.Join(s.dir, blobs))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return p, others, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return p, others, err
		}
		same := func(k os.FileInfo) bool { return os.SameFile(k, info) }
		if !isDigest(e.Name()) || used[e.Name()] || !info.Mode().IsRegular() || slices.ContainsFunc(kept, same) {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, blobs, e.Name())); err != nil {
			return p, others, err
		}
		p.Files = append(p.Files, e.Name())
		p.Bytes += info.Size()
	}
	return p, others, nil
}

// partsOf are the files in directories that are called as those of images.
func partsOf(others []Other) (files []os.FileInfo) {
	for _, o := range others {
		for _, name := range parts {
			if info, err := os.Lstat(filepath.Join(o.Dir, name)); err == nil {
				files = append(files, info)
			}
		}
	}
	return files
}

// sweep removes what builds that were killed left; the store is locked.
func (s *Store) sweep() {
	left, _ := filepath.Glob(filepath.Join(s.dir, building+"*")) // the pattern is a good one
	for _, dir := range left {
		_ = os.RemoveAll(dir) // what cannot be removed stays until the next time
	}
}

// lock keeps other processes from changing the store.
func (s *Store) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the store of images: %w (choose another with --dir)", err)
	}
	lock := flock.New(filepath.Join(s.dir, ".lock"), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	switch {
	case err != nil:
		return nil, fmt.Errorf("lock the store of images: %w", err)
	case !locked:
		return nil, fmt.Errorf("another nex is changing the images in %s: try again when it is done", s.dir)
	}
	return func() { _ = lock.Close() }, nil
}

// syncDir makes the names in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
