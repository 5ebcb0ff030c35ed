package runtime

import (
	"context"

	"nex"
)

// Host is what user code reaches through its node: the host services. What can
// be asked of them is listed in docs/host-services.md.
type Host interface {
	// Call asks a service to do something and waits for the answer, until ctx
	// ends. Its errors are [nex.Error] values. Safe for concurrent use, but a
	// context that comes from [Function.Invoke] is for the goroutine of that
	// alone: others bring a context of their own, which need only end with it.
	Call(ctx context.Context, service, method string, m Message) (Message, error)
}

// Message is a question to a host service, or its answer.
type Message struct {
	Args    map[string]string   // by name; may be nil
	Header  map[string][]string // of a NATS message or HTTP; may be nil
	Payload []byte              // belongs to the callee, or to the caller of what it answers
}

// NoHost is the Host where there are no host services.
type NoHost struct{}

// Call returns an Unsupported error.
func (NoHost) Call(_ context.Context, service, _ string, _ Message) (Message, error) {
	return Message{}, nex.Errorf(nex.Unsupported, "No such host service: %.40s", service)
}
