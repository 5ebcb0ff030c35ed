//go:build reactor

package main

import "unsafe"

var request, reply []byte

//go:wasmexport nex_alloc
func alloc(size uint32) unsafe.Pointer {
	request = make([]byte, size+1)[:size] // never nil
	return unsafe.Pointer(unsafe.SliceData(request))
}

//go:wasmexport nex_invoke
func invoke(_ unsafe.Pointer, subject uint32, _ unsafe.Pointer, _ uint32) uint64 {
	reply = []byte(run(string(request[:subject]), request[subject:]))
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(reply))))<<32 | uint64(len(reply))
}
