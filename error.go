package nex

import (
	"errors"
	"fmt"
	"strings"
)

// Code says what kind of failure an [Error] is, in one stable word. Callers
// decide by code and show the message to people.
type Code string

// Codes of a request to a node.
const (
	Invalid      Code = "invalid"      // the request cannot be understood or contradicts itself
	Unauthorized Code = "unauthorized" // signature, issuer or claims do not allow it
	Denied       Code = "denied"       // understood and signed, but this node's policy forbids it
	NotFound     Code = "not_found"    // no such workload or artifact
	NoSuchNode   Code = "no_such_node" // nobody heard the request; made by clients, not by nodes
	Exhausted    Code = "exhausted"    // a limit of the node is reached
	LameDuck     Code = "lame_duck"    // the node takes no new work
	Unsupported  Code = "unsupported"  // this node cannot do that at all
	Unavailable  Code = "unavailable"  // cannot be done now; trying again may help
	Internal     Code = "internal"     // a defect or an unexpected condition in the node
)

// Codes of a function call, besides [Unavailable] and [Internal].
const (
	Timeout     Code = "timeout"       // the call passed its deadline and was stopped
	Exception   Code = "exception"     // user code threw, trapped or exited with a status other than 0
	OutOfMemory Code = "out_of_memory" // user code passed its memory limit
	Overloaded  Code = "overloaded"    // too many calls are waiting; try again later
	BadReply    Code = "bad_reply"     // the function returned a value that has no reply form
)

// TooLarge is a code of host services, besides [Invalid], [Denied], [NotFound],
// [Timeout], [Overloaded], [Unavailable] and [Unsupported]: a value is over a
// limit.
const TooLarge Code = "too_large"

// httpStatus gives every code the number that NATS micro clients expect in
// the Nats-Service-Error-Code header.
var httpStatus = map[Code]int{
	Invalid: 400, Unauthorized: 401, Denied: 403, NotFound: 404, NoSuchNode: 404, Exhausted: 429,
	LameDuck: 503, Unsupported: 501, Unavailable: 503, Internal: 500,
	Timeout: 504, Exception: 500, OutOfMemory: 507, Overloaded: 503, BadReply: 502, TooLarge: 413,
}

// Status returns the number sent in the Nats-Service-Error-Code header: the
// HTTP status nearest in meaning. Unknown codes give 500.
func (c Code) Status() int {
	if n, ok := httpStatus[c]; ok {
		return n
	}
	return 500
}

// Known reports whether c is a code of this package.
func (c Code) Known() bool {
	_, ok := httpStatus[c]
	return ok
}

// Error is a failure with a code. It travels in replies beside the text that
// Nex 0.2.7 clients read.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error returns the message alone: the code is for programs.
func (e *Error) Error() string { return e.Message }

// Errorf makes an [Error] with a formatted message. Use %v for causes: the
// result does not wrap them.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the first [Error] in err's chain, and [Internal]
// when there is none. It returns "" for a nil error.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// textCodes are the codes of refusals by nodes of Nex 0.2.7, which send none,
// by how their texts begin.
var textCodes = []struct {
	text string
	code Code
}{
	{"Node is in lame duck mode", LameDuck},
	{"Node is at maximum workload limit", Exhausted},
	{"Workload file size would exceed", Exhausted},
	{"No such workload", NotFound},
	{"Unable to deserialize", Invalid},
	{"Unsupported workload type", Unsupported},
	{"The trigger subject", Denied},
	{"Failed to decrypt environment", Invalid},
	{"invalid workload issuer", Unauthorized},
	{"Invalid deploy request", Unauthorized},
	{"Invalid stop request", Unauthorized},
	{"Failed to get agent client from pool", Unavailable},
	{"Failed to cache workload bytes: nats: stream not found", NotFound},
	{"Failed to cache workload bytes: nats: object not found", NotFound},
}

// codeOfText guesses what kind of refusal a text is.
func codeOfText(text string) Code {
	for _, t := range textCodes {
		if strings.HasPrefix(text, t.text) {
			return t.code
		}
	}
	return Internal
}
