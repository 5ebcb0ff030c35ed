package nexhost

import (
	"strconv"
	"time"
)

// Incoming is what there is to know of the message that the function answers,
// beside its payload.
type Incoming struct {
	Subject  string
	Reply    string // "" when nobody waits for an answer
	Header   map[string][]string
	Deadline time.Time // when the function is stopped
}

// Received returns the message that the function answers.
func Received() (Incoming, error) {
	m, err := Call("message", "get", Message{})
	if err != nil {
		return Incoming{}, err
	}
	in := Incoming{Subject: m.Args["subject"], Reply: m.Args["reply"], Header: m.Header}
	if due, err := strconv.ParseInt(m.Args["deadline_ms"], 10, 64); err == nil {
		in.Deadline = time.UnixMilli(due)
	}
	return in, nil
}

// RespondWith sets the headers of the reply, instead of those set before.
func RespondWith(header map[string][]string) error {
	_, err := Call("message", "respond", Message{Header: header})
	return err
}
