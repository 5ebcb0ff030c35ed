//go:build !linux

package native

import "os"

// reap waits for the process, calls dead when it is dead, and returns how it
// ended, nil if unknown.
func reap(p *os.Process, dead func()) *os.ProcessState {
	state, _ := p.Wait()
	dead()
	return state
}
