package nex

import "log/slog"

// Secret is a text that prints as [redacted] everywhere but in JSON, where it
// must travel. Convert it to string to use it.
type Secret string

const redacted = "[redacted]"

func (Secret) String() string { return redacted }

// GoString hides the text from %#v.
func (Secret) GoString() string { return redacted }

// LogValue hides the text from structured logs.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
