package undo_test

import (
	"slices"
	"testing"

	"nex/internal/undo"
)

func TestUnwindRunsLastFirstEvenAfterAPanic(t *testing.T) {
	var got []int
	var s undo.Stack
	s.Push(func() { got = append(got, 1) })
	s.Push(func() { got = append(got, 2); panic("boom") })
	s.Push(func() { got = append(got, 3) })
	func() {
		defer func() { _ = recover() }()
		s.Unwind()
	}()
	if !slices.Equal(got, []int{3, 2, 1}) {
		t.Errorf("ran %v", got)
	}
	s.Unwind()
	if len(got) != 3 {
		t.Errorf("ran again: %v", got)
	}
}

func TestKeep(t *testing.T) {
	var s undo.Stack
	s.Push(func() { t.Error("kept things were undone") })
	s.Keep()
	s.Unwind()
}
