package js

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"nex"
	"nex/internal/runtime"
)

// maxBegun is how many host calls of one isolate may be under way without its
// code waiting for them.
const maxBegun = 256

// maxBegunBytes is how many bytes they may have together, and those answers that
// the code has not fetched: they are in the agent's memory, and not in that which
// is counted as the isolate's. It is enough for two of the longest.
const maxBegunBytes = 130 << 20

// Helper answers what the prelude of one isolate asks for with host.ask: what
// [ask] does for everybody, and calls of host services. Those that are begun
// rather than made go on while the code does something else. Safe for
// concurrent use.
//
// A call of a host service is texts with NULs between them, behind their size
// in 4 bytes (little endian), and then the payload. The texts are the service,
// the method, names and values of arguments and, behind an empty one, of headers.
// Its answer is likewise, but there an [answer] is the text, or nothing when there
// is nothing to tell.
type Helper struct {
	host    runtime.Host
	came    chan struct{} // there may be something in ended
	running sync.WaitGroup

	mu sync.Mutex
	// ctx is of the host calls of this round, and cancel not nil while there are
	// any: since the first was begun.
	ctx    context.Context
	cancel context.CancelFunc
	round  int      // counts the calls of the isolate's function
	begun  int      // host calls of this round whose answer was not fetched yet
	bytes  int      // of these calls, or of their answers
	last   int      // number of the newest
	ended  [][]byte // their answers
}

// answer is what the prelude gets to know of a host call beside the payload.
type answer struct {
	Ticket  int                 `json:"ticket,omitempty"` // of a call that was begun
	Args    map[string]string   `json:"args,omitempty"`
	Header  map[string][]string `json:"headers,omitempty"`
	Code    nex.Code            `json:"code,omitempty"` // it failed
	Message string              `json:"message,omitempty"`
}

// NewHelper makes the helper of an isolate.
func NewHelper(h runtime.Host) *Helper {
	if h == nil {
		h = runtime.NoHost{}
	}
	return &Helper{host: h, came: make(chan struct{}, 1)}
}

// Drop cancels and forgets the host calls that were begun and that nobody waits
// for any more, since the function has returned.
func (h *Helper) Drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cancel == nil {
		return
	}
	h.cancel()
	h.cancel = nil
	h.round++
	h.begun, h.bytes, h.ended = 0, 0, nil
}

// Close drops the host calls that are under way and waits for their end.
func (h *Helper) Close() {
	h.Drop()
	h.running.Wait()
}

// Ask answers one question. The answer is nil where the input is not what it
// must be, or ctx ended. The input is the caller's again afterwards.
func (h *Helper) Ask(ctx context.Context, what string, input []byte) []byte {
	switch what {
	case "host.call":
		return h.call(ctx, input, 0)
	case "host.begin": // answered by the number of the call, in decimal
		return h.begin(ctx, input)
	case "host.ended": // the answer of a call that was begun, if one has ended
		return h.next()
	}
	return ask(ctx, what, input)
}

// begin has a call go on by itself and returns its number, or nil when there
// are too many.
func (h *Helper) begin(ctx context.Context, input []byte) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.begun >= maxBegun || h.bytes+len(input) > maxBegunBytes {
		return nil
	}
	if h.cancel == nil {
		h.ctx, h.cancel = apart(ctx)
	}
	h.begun++
	h.bytes += len(input)
	h.last++
	ctx, round, ticket, input := h.ctx, h.round, h.last, bytes.Clone(input)
	h.running.Go(func() {
		a := h.call(ctx, input, ticket)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.round != round {
			return
		}
		h.bytes -= len(input)
		if a == nil {
			return
		}
		if h.bytes+len(a) > maxBegunBytes {
			a = answer{Ticket: ticket, Code: nex.Overloaded, Message: "the answers of calls under way are too long together: await some of them first"}.encode(nil)
		}
		h.bytes += len(a)
		h.ended = append(h.ended, a)
		h.tell()
	})
	return strconv.AppendInt(nil, int64(ticket), 10)
}

// apart returns a context for other goroutines that ends with ctx; see
// [runtime.Host].
func apart(ctx context.Context) (context.Context, context.CancelFunc) {
	own, cancel := context.Background(), context.CancelFunc(nil)
	if due, ok := ctx.Deadline(); ok {
		own, cancel = context.WithDeadline(own, due)
	} else {
		own, cancel = context.WithCancel(own)
	}
	stop := context.AfterFunc(ctx, cancel)
	return own, func() { stop(); cancel() }
}

// next returns the answer of a call that was begun and has ended, or nil.
func (h *Helper) next() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ended) == 0 {
		return nil
	}
	a := h.ended[0]
	h.ended[0] = nil
	h.ended = h.ended[1:]
	h.begun--
	h.bytes -= len(a)
	return a
}

// tell wakes Wait.
func (h *Helper) tell() {
	select {
	case h.came <- struct{}{}:
	default: // it is told already
	}
}

// Wait returns after so many milliseconds, or a little sooner when a host call
// has ended: true; or false, when ctx ended.
func (h *Helper) Wait(ctx context.Context, milliseconds int) bool {
	t := time.NewTimer(time.Duration(milliseconds) * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-h.came:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// call asks a host service and returns its answer as the prelude reads it, or
// nil when ctx ended: nobody reads it then.
func (h *Helper) call(ctx context.Context, input []byte, ticket int) []byte {
	q, err := readQuestion(input)
	if err != nil {
		return answer{Ticket: ticket, Code: nex.Invalid, Message: err.Error()}.encode(nil)
	}
	m, err := h.host.Call(ctx, q.service, q.method, q.Message)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return answer{Ticket: ticket, Code: nex.CodeOf(err), Message: err.Error()}.encode(nil)
	}
	a := answer{Ticket: ticket}
	if q.service == "http" { // of others the payload is all that the code gets to see
		a.Args, a.Header = m.Args, m.Header
	}
	return a.encode(m.Payload)
}

// question is a call of a host service.
type question struct {
	service, method string
	runtime.Message
}

var errQuestion = errors.New("malformed host call")

func readQuestion(input []byte) (question, error) {
	if len(input) < 4 || uint64(binary.LittleEndian.Uint32(input)) > uint64(len(input)-4) {
		return question{}, errQuestion
	}
	end := 4 + int(binary.LittleEndian.Uint32(input))
	texts := strings.Split(string(input[4:end]), "\x00")
	if len(texts) < 2 {
		return question{}, errQuestion
	}
	q := question{service: texts[0], method: texts[1]}
	texts = texts[2:]
	q.Args = make(map[string]string, len(texts)/2)
	for ; len(texts) > 1 && texts[0] != ""; texts = texts[2:] {
		q.Args[texts[0]] = texts[1]
	}
	if len(texts) > 0 {
		q.Header = map[string][]string{}
		for texts = texts[1:]; len(texts) > 1; texts = texts[2:] {
			q.Header[texts[0]] = append(q.Header[texts[0]], texts[1])
		}
	}
	if len(texts) > 0 {
		return question{}, errQuestion
	}
	q.Payload = bytes.Clone(input[end:])
	return q, nil
}

func (a answer) encode(payload []byte) []byte {
	var about []byte
	if a.Ticket != 0 || a.Code != "" || a.Args != nil || a.Header != nil {
		about, _ = json.Marshal(a) // strings always have a JSON form
	}
	b := make([]byte, 4, 4+len(about)+len(payload))
	binary.LittleEndian.PutUint32(b, uint32(len(about)))
	return append(append(b, about...), payload...)
}
