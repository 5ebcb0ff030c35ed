//go:build !wasip1

package nexhost

// ask answers that there are no host services, so that programs which use them
// can be built and tested on any machine.
func ask([]byte) []byte {
	answer := appendText(nil, "unsupported")
	answer = append(answer, make([]byte, 8)...) // no arguments, no headers
	return append(answer, "host services are there only for WebAssembly functions of Nex"...)
}
