package preflight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// recordName is the file in the state directory that says what was installed.
const recordName = "installed.json"

// Installed is a file that was installed, as it was then.
type Installed struct {
	Path   string    `json:"path"`
	SHA256 string    `json:"sha256"` // in hex
	Size   int64     `json:"size"`   // bytes
	Source string    `json:"source"` // a URL, a file, or "nex"
	At     time.Time `json:"at"`
}

// maxRecord is more than any record takes, in bytes.
const maxRecord = 1 << 20

// readRecord returns what was installed, nothing if nothing was.
func readRecord(state string) (list []Installed, err error) {
	path := filepath.Join(state, recordName)
	data, err := readBounded(path, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w (remove it to have it begun anew)", path, err)
	}
	return list, nil
}

// record adds to what was installed.
func record(state string, i Installed) error {
	list, err := readRecord(state)
	if err != nil {
		return err
	}
	list = append(slices.DeleteFunc(list, func(old Installed) bool { return old.Path == i.Path }), i)
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(state, recordName), 0o600, func(f *os.File) error {
		_, err := f.Write(append(data, '\n'))
		return err
	})
}

// Verified is what became of a file that was installed.
type Verified struct {
	Installed
	Problem string `json:"problem,omitempty"` // "" if it is as it was
}

// Verify compares everything that was installed with what it was then.
func Verify(ctx context.Context, state string) ([]Verified, error) {
	list, err := readRecord(state)
	if err != nil {
		return nil, err
	}
	all := make([]Verified, 0, len(list))
	for _, i := range list {
		v := Verified{Installed: i}
		got, _, err := digestOf(ctx, i.Path)
		if err != nil {
			v.Problem = err.Error()
		} else if got != i.SHA256 {
			v.Problem = fmt.Sprintf("its SHA-256 is %s, and was %s", got, i.SHA256)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		all = append(all, v)
	}
	return all, nil
}

// replaceFile puts a file in place once all of it is on disk; nobody sees a part
// of it.
func replaceFile(path string, mode fs.FileMode, write func(*os.File) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".nex-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the first error is the one to report
		}
	}()
	if err := errors.Join(write(f), f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir has the names in a directory written down.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_ = d.Sync() // not every file system, nor Windows, can
	return d.Close()
}
