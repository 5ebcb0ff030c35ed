package wasm

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"nex"
	"nex/internal/runtime"
)

// What a request may have.
const (
	maxName    = 64 // bytes of the name of a service or method
	maxArgs    = 16
	maxHeaders = 1000
)

// question is a request as a module framed it, see docs/host-services.md.
type question struct {
	service, method string
	message         runtime.Message
}

// readQuestion copies a question out of the module's memory, which is put back
// while the host may still hold the payload.
func readQuestion(request []byte) (question, error) {
	r := reader{rest: request}
	q := question{service: r.counted(), method: r.counted()}
	r.check(len(q.service) <= maxName && len(q.method) <= maxName)
	q.message.Args = map[string]string{}
	r.pairs(maxArgs, func(name, value string) { q.message.Args[name] = value })
	r.pairs(maxHeaders, func(name, value string) {
		if q.message.Header == nil {
			q.message.Header = map[string][]string{}
		}
		q.message.Header[name] = append(q.message.Header[name], value)
	})
	if r.bad {
		return question{}, nex.Errorf(nex.Invalid, "malformed request to a host service: it is cut off, "+
			"or has a name of more than %d bytes, more than %d arguments or more than %d headers", maxName, maxArgs, maxHeaders)
	}
	q.message.Payload = slices.Clone(r.rest)
	return q, nil
}

// size reads a number of 32 bits.
func (r *reader) size() uint64 {
	b := r.bytes(4)
	if r.bad {
		return 0
	}
	return uint64(binary.LittleEndian.Uint32(b))
}

// counted reads a text behind its size.
func (r *reader) counted() string { return string(r.bytes(r.size())) }

// pairs reads a list of texts with names.
func (r *reader) pairs(most uint64, each func(name, value string)) {
	n := r.size()
	r.check(n <= most)
	for ; n > 0 && !r.bad; n-- {
		name := r.counted()
		value := r.counted()
		if !r.bad {
			each(name, value)
		}
	}
}

// answer is what a module fetches: head and behind it payload.
type answer struct{ head, payload []byte }

// size is 0 if there is no answer.
func (a answer) size() uint32 { return uint32(len(a.head) + len(a.payload)) }

// answerOf frames an answer. The lists are sorted, so that what a module makes
// of equal answers is equal.
func answerOf(m runtime.Message) answer {
	b := appendCounted(make([]byte, 0, 64), "") // no code: it succeeded
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m.Args)))
	for _, name := range slices.Sorted(maps.Keys(m.Args)) {
		b = appendCounted(appendCounted(b, name), m.Args[name])
	}
	count := 0
	for _, values := range m.Header {
		count += len(values)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(count))
	for _, name := range slices.Sorted(maps.Keys(m.Header)) {
		for _, value := range m.Header[name] {
			b = appendCounted(appendCounted(b, name), value)
		}
	}
	return answer{b, m.Payload}
}

// answerError frames an error: its code, no arguments and headers, and its text as
// the payload.
func answerError(err error) answer {
	b := appendCounted(nil, string(nex.CodeOf(err)))
	b = append(b, make([]byte, 8)...)
	text := err.Error()
	return answer{b, []byte(strings.ToValidUTF8(text[:min(len(text), maxLine)], "\uFFFD"))}
}

func appendCounted(b []byte, text string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(text))), text...)
}
