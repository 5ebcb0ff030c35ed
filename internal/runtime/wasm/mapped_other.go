//go:build !linux

package wasm

import "errors"

// sharedImage does not exist here: see its other form.
type sharedImage struct{}

func (img image) share(int) (*sharedImage, error) { return nil, errors.ErrUnsupported }
func (s *sharedImage) close() error               { return nil }
func (m *memory) reserve(uint64) []byte           { return nil }
func (m *memory) adopt(*sharedImage) error        { return errors.ErrUnsupported }
func (m *memory) restoreWritten(image) error      { return errors.ErrUnsupported }
func drop([]byte)                                 {}
func (m *memory) touched() []bool                 { return nil }
