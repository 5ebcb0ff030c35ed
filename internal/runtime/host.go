package runtime

import (
	"context"

	"nex"
)

// Host is what user code reaches through its node: the host services. What can
// be asked of them is listed in docs/host-services.md.
type Host interface {
	// Call asks a service to do something and waits for the answer, until ctx
	// ends. Its errors are [nex.Error] values. Safe for concurrent use. With a
	// context from [InCall] it costs least.
	Call(ctx context.Context, service, method string, m Message) (Message, error)
}

// Message is a question to a host service, or its answer.
type Message struct {
	Args    map[string]string   // by name; may be nil
	Header  map[string][]string // of a NATS message or HTTP; may be nil
	Payload []byte              // belongs to the callee, or to the caller of what it answers
}

type inCall struct{}

// InCall returns a context for calls of the Host on the goroutine of
// [Function.Invoke], whose context ctx is or comes from.
func InCall(ctx context.Context) context.Context { return context.WithValue(ctx, inCall{}, true) }

// IsInCall reports whether ctx comes from [InCall].
func IsInCall(ctx context.Context) bool { return ctx.Value(inCall{}) != nil }

// NoHost is the Host where there are no host services.
type NoHost struct{}

// Call returns an Unsupported error.
func (NoHost) Call(_ context.Context, service, _ string, _ Message) (Message, error) {
	return Message{}, nex.Errorf(nex.Unsupported, "No such host service: %s", service)
}
