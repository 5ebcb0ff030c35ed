package nex

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a text that prints as [redacted] everywhere but in JSON, where it
// must travel. Convert it to string to use it.
type Secret string

const redacted = "[redacted]"

func (Secret) String() string { return redacted }

// Format hides the text from every verb, also from those that are not for
// texts: for them fmt would show the value beside its complaint.
func (Secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue hides the text from structured logs.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
