// Package undo unwinds what a function has acquired when it does not finish.
//
//	var u undo.Stack
//	defer u.Unwind()
//	… acquire …
//	u.Push(release)
//	… all went well …
//	u.Keep()
//
// A Stack belongs to one goroutine.
package undo

// Stack holds the steps that undo what was done so far.
type Stack struct{ steps []func() }

// Push adds a step; it runs before those pushed earlier.
func (s *Stack) Push(step func()) { s.steps = append(s.steps, step) }

// Keep forgets all steps: what was done stays.
func (s *Stack) Keep() { s.steps = nil }

// Unwind runs the steps, last first, and forgets them. Later steps run even
// if one panics.
func (s *Stack) Unwind() {
	if len(s.steps) == 0 {
		return
	}
	step := s.steps[len(s.steps)-1]
	s.steps = s.steps[:len(s.steps)-1]
	defer s.Unwind()
	step()
}
