//go:build wasip1

// Command goreactor is a Nex function in Go that stays in memory: it answers
// each message with its payload followed by the subject it came on and the
// number of messages this instance has answered.
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o reactor.wasm ./examples/wasm/goreactor
//
// Nex calls _initialize, which starts the Go runtime, once, and then two
// functions for each message. A Go command is started for each message
// instead, which takes a hundred times as long.
package main

import (
	"strconv"
	"unsafe"
)

var (
	request []byte // the subject, then the payload
	reply   []byte
	calls   int
)

// alloc returns a place for the next request. It is ours and is used again.
//
//go:wasmexport nex_alloc
func alloc(size uint32) unsafe.Pointer {
	if int(size) > cap(request) {
		request = make([]byte, size)
	}
	request = request[:size]
	return unsafe.Pointer(unsafe.SliceData(request))
}

// invoke answers the request that was written to the place.
//
//go:wasmexport nex_invoke
func invoke(_ unsafe.Pointer, subject uint32, _ unsafe.Pointer, _ uint32) uint64 {
	calls++
	payload := request[subject:]
	if string(payload) == "fail" {
		reply = append(reply[:0], "asked to fail"...)
		return answer(reply) | 1<<63 // the reply is the text of an error
	}
	reply = append(append(reply[:0], payload...), request[:subject]...)
	reply = strconv.AppendInt(reply, int64(calls), 10)
	return answer(reply)
}

// answer packs where a reply is and its size.
func answer(b []byte) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))<<32 | uint64(len(b))
}

// main is not called: the module is a library.
func main() {}
