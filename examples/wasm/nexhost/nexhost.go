// Package nexhost gives WebAssembly functions in Go the host services of Nex:
// key-value buckets, an object store, messaging and HTTP.
//
//	var kv nexhost.KV
//	value, err := kv.Get("greeting")
//	if nexhost.CodeOf(err) == "not_found" {
//
// The node knows which function asks and opens its own connections; there is
// nothing to configure here and nothing to close. Every failure of a service is
// an [Error]. While a call waits, all goroutines of the program stand still; at
// the function's deadline Nex ends the program.
//
// The package imports the standard library only and may be copied.
package nexhost

import (
	"encoding/binary"
	"errors"
)

// Message is what a host service is asked, or its answer.
type Message struct {
	Args    map[string]string
	Header  map[string][]string
	Payload []byte
}

// Error is the failure of a host service.
type Error struct {
	Code    string // one word, as in "not_found"
	Message string
}

func (e *Error) Error() string { return e.Message }

// CodeOf returns the code of an error of this package, "" for nil and for
// others.
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Call asks a host service to do something. The types of this package do so for
// the services that every node knows.
func Call(service, method string, m Message) (Message, error) {
	return decode(ask(encode(service, method, m)))
}

func encode(service, method string, m Message) []byte {
	b := make([]byte, 0, 256+len(m.Payload))
	b = appendText(appendText(b, service), method)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m.Args)))
	for name, value := range m.Args {
		b = appendText(appendText(b, name), value)
	}
	count := 0
	for _, values := range m.Header {
		count += len(values)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(count))
	for name, values := range m.Header {
		for _, value := range values {
			b = appendText(appendText(b, name), value)
		}
	}
	return append(b, m.Payload...)
}

// decode takes apart what the host wrote, which is well formed.
func decode(b []byte) (Message, error) {
	code := text(&b)
	var m Message
	for range number(&b) {
		if m.Args == nil {
			m.Args = map[string]string{}
		}
		name := text(&b)
		m.Args[name] = text(&b)
	}
	for range number(&b) {
		if m.Header == nil {
			m.Header = map[string][]string{}
		}
		name := text(&b)
		m.Header[name] = append(m.Header[name], text(&b))
	}
	if code != "" {
		return Message{}, &Error{code, string(b)}
	}
	m.Payload = b
	return m, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

func number(b *[]byte) uint32 {
	n := binary.LittleEndian.Uint32(*b)
	*b = (*b)[4:]
	return n
}

func text(b *[]byte) string {
	n := number(b)
	s := string((*b)[:n])
	*b = (*b)[n:]
	return s
}
