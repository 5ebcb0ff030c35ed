//go:build !linux

package native

import "os"

// reap waits for the process, kills its group, and returns how it ended, nil if
// unknown.
func (p *Process) reap() *os.ProcessState {
	state, _ := p.main.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	killGroup(p.main)
	p.gone = true
	return state
}
