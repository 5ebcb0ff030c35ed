package js

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"nex"
	"nex/internal/runtime"
)

// maxBegun is how many host calls may be under way for each call in an isolate
// without its code waiting for them.
const maxBegun = 256

// maxBegunBytes is how many bytes they may have together, and those answers that
// the code has not fetched: they are in the agent's memory, and not in that which
// is counted as the isolate's. It is enough for two of the longest.
const maxBegunBytes = 130 << 20

// grace is how much longer than the calls in the isolate what they began may
// take, so that it does not end before them.
const grace = time.Second

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
	wake    func(int)     // Source.Wake
	came    chan struct{} // there may be something in ended
	running sync.WaitGroup

	// These belong to whose turn it is.
	turn Turn
	due  float64 // the latest Call.Deadline since the isolate was empty

	mu sync.Mutex
	// ctx is of the host calls of this round, and cancel not nil while there are
	// any: since the first was begun.
	ctx    context.Context
	cancel context.CancelFunc
	round  int     // counts the times that the isolate was empty
	begun  int     // host calls of this round whose answer was not fetched yet
	bytes  int     // of these calls, or of their answers
	last   int     // number of the newest
	ended  []ended // their answers
}

// ended is the answer of a host call that was begun in the turn of a slot.
type ended struct {
	slot   int
	answer []byte
}

// answer is what the prelude gets to know of a host call beside the payload.
type answer struct {
	Ticket  int                 `json:"ticket,omitempty"` // of a call that was begun
	Args    map[string]string   `json:"args,omitempty"`
	Header  map[string][]string `json:"headers,omitempty"`
	Code    nex.Code            `json:"code,omitempty"` // it failed
	Message string              `json:"message,omitempty"`
}

// NewHelper makes the helper of an isolate that is made from s.
func NewHelper(s Source) *Helper {
	h := &Helper{host: s.Host, wake: s.Wake, came: make(chan struct{}, 1), due: math.Inf(1)}
	if h.host == nil {
		h.host = runtime.NoHost{}
	}
	if h.wake == nil {
		h.wake = func(int) {}
	}
	return h
}

// Join notes that c comes into the isolate and has the turn.
func (h *Helper) Join(c *Call) {
	if h.turn = c.Turn; c.Others == 0 {
		h.due = c.Deadline
	}
	h.due = max(h.due, c.Deadline)
}

// Turn notes who has the turn.
func (h *Helper) Turn(t Turn) { h.turn = t }

// Drop cancels and forgets the host calls that were begun and that nobody waits
// for any more, since no call is left in the isolate.
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
		return h.begin(input)
	case "host.ended": // the answer of a call that was begun, if one has ended
		return h.next()
	}
	return ask(ctx, what, input)
}

// begin has a host call go on by itself and returns its number, or nil when
// there are too many. It may outlive the call whose turn it is: the code of
// several waits for what one of them began.
func (h *Helper) begin(input []byte) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.begun >= maxBegun*(1+bits.OnesCount64(h.turn.Others)) || h.bytes+len(input) > maxBegunBytes {
		return nil
	}
	if h.cancel == nil {
		h.ctx, h.cancel = context.WithCancel(context.Background())
	}
	h.begun++
	h.bytes += len(input)
	h.last++
	ctx, stop := h.ctx, func() {}
	if !math.IsInf(h.due, 1) {
		ctx, stop = context.WithDeadline(ctx, time.UnixMilli(int64(h.due)).Add(grace))
	}
	round, ticket, slot, input := h.round, h.last, h.turn.Slot, bytes.Clone(input)
	h.running.Go(func() {
		defer stop()
		a := h.call(ctx, input, ticket)
		if a == nil {
			a = answer{Ticket: ticket, Code: nex.Timeout, Message: "no answer in time"}.encode(nil)
		}
		h.end(round, len(input), ended{slot, a}, ticket)
	})
	return strconv.AppendInt(nil, int64(ticket), 10)
}

// end takes the answer of a host call that was begun in that round, with that
// many bytes.
func (h *Helper) end(round, asked int, e ended, ticket int) {
	if !h.keep(round, asked, e, ticket) {
		return
	}
	select {
	case h.came <- struct{}{}:
	default: // it is told already
	}
	h.wake(e.slot)
}

// keep keeps an answer until it is fetched, and reports whether it is wanted.
func (h *Helper) keep(round, asked int, e ended, ticket int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.round != round {
		return false
	}
	h.bytes -= asked
	if h.bytes+len(e.answer) > maxBegunBytes {
		e.answer = answer{Ticket: ticket, Code: nex.Overloaded, Message: "the answers of calls under way are too long together: await some of them first"}.encode(nil)
	}
	h.bytes += len(e.answer)
	h.ended = append(h.ended, e)
	return true
}

// Came returns in whose turn the first of the answers was asked for that were not
// fetched yet.
func (h *Helper) Came() (slot int, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ended) == 0 {
		return 0, false
	}
	return h.ended[0].slot, true
}

// next returns the answer of a call that was begun and has ended, or nil, for
// whose turn it is.
func (h *Helper) next() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	any := h.turn.Any || h.turn.Others == 0
	n := slices.IndexFunc(h.ended, func(e ended) bool { return any || e.slot == h.turn.Slot })
	if n < 0 {
		return nil
	}
	a := h.ended[n].answer
	h.ended = slices.Delete(h.ended, n, n+1)
	h.begun--
	h.bytes -= len(a)
	return a
}

// Wait has a script that is being loaded wait for so many milliseconds, or a
// little less when a host call has ended: true; or false, when ctx ended.
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
