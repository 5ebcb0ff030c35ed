//go:build !linux

package image

import (
	"errors"
	"os"
)

// exchange gives each of two directories the other's name. Between the renames
// the second name is nobody's.
func exchange(a, b string) error {
	aside := a + "-old"
	return errors.Join(os.Rename(b, aside), os.Rename(a, b), os.Rename(aside, a))
}
