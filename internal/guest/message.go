package guest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"nex"
)

// Protocol is the version of the link that both ends must share.
const Protocol = 1

// Methods a node calls on an agent.
const (
	methodPut      method = 1 + iota // a piece of a workload's artifact
	methodDeploy                     // JSON of Deploy
	methodInvoke                     // see encodeTrigger
	methodUndeploy                   // a workload id
	methodProbe                      // JSON of Probe
	methodPing                       // see encodePing
)

// methodHost is what an agent calls on its node, see encodeHostCall.
const methodHost method = 64

// Topics of an agent's notices.
const (
	topicLog     = 1 + iota // see encodeLog
	topicExit               // JSON of exitNotice
	topicRunaway            // the id of a workload whose code does not stop
)

// Hello is the first thing an agent says.
type Hello struct {
	Protocol int                `json:"protocol"`
	Version  string             `json:"version"` // the agent's build
	Types    []nex.WorkloadType `json:"types"`   // what it can run
}

// Deploy asks an agent to load a workload whose artifact it has been sent.
type Deploy struct {
	ID          string            `json:"id"`
	Namespace   string            `json:"namespace"`
	Name        string            `json:"name"`
	File        string            `json:"file"` // the artifact's name in error texts
	Type        nex.WorkloadType  `json:"type"`
	SHA256      string            `json:"sha256"` // of the artifact, lowercase hex
	Argv        []string          `json:"argv,omitempty"`
	Environment map[string]string `json:"environment,omitempty"`
	Static      bool              `json:"static,omitempty"` // refuse dynamically linked executables
	Settings    nex.Settings      `json:"settings"`         // complete
}

// CacheVariable names the environment variable of an agent that says where it
// may keep compiled code. It is not set where nothing may outlive a machine.
const CacheVariable = "NEX_CODE_CACHE"

// Probe asks whether a service answers on the network of its machine: whether it
// takes connections, and with a path, whether it answers a GET of that by HTTP
// with a status below 400.
type Probe struct {
	ID        string `json:"id"` // the workload
	Port      int    `json:"port"`
	Path      string `json:"path,omitempty"`
	TimeoutMS int    `json:"timeout_ms"`
}

// WorkVariable names the environment variable of an agent that lists the file
// descriptors, with commas, by which services go where they are limited: a
// process that writes "0" to each moves itself. It is not set where the node
// cannot limit services.
const WorkVariable = "NEX_WORK_CGROUP"

// Trigger is one message for a function.
type Trigger struct {
	ID      string // the workload
	Subject string // concrete
	Reply   string
	Header  map[string][]string
	Payload []byte
	Timeout time.Duration // how long the function may take, counted by the agent
}

// Result is a function's answer.
type Result struct {
	Header  map[string][]string
	Payload []byte
	Elapsed time.Duration // spent in the function, as the agent measures it
}

// HostCall is what the code of a workload asks of a host service.
type HostCall struct {
	ID      string        // the workload, one that the agent has been given
	Timeout time.Duration // how long the answer is waited for
	Service string
	Method  string
	Message
}

// Message is what a host service is asked, or its answer.
type Message struct {
	Args    map[string]string
	Header  map[string][]string
	Payload []byte
}

// Exit tells how a service ended.
type Exit struct {
	Code    int    `json:"code"` // exit status, -1 for a signal
	Message string `json:"message"`
	// Cause is the limit that ended it, "" for none. The agent knows of the disk
	// alone; the node adds what it sees of the machine.
	Cause string `json:"cause,omitempty"`
}

// Incident is a limit that a service met.
type Incident struct {
	Cause   string // as in [nex.WorkloadLimitHit]
	Message string
}

type exitNotice struct {
	ID string `json:"id"`
	Exit
}

// errMessage is what a decoder says of bytes it does not understand.
var errMessage = errors.New("malformed message")

// maxText bounds texts a guest sends that end up in memory or logs, in bytes.
const maxText = 64 << 10

// appendText writes a text with its length before it.
func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// scanner reads the fields of a message; the first error sticks.
type scanner struct {
	rest []byte
	err  error
}

func (s *scanner) take(n int) []byte {
	if s.err != nil || n < 0 || n > len(s.rest) {
		s.err = errMessage
		return nil
	}
	b := s.rest[:n]
	s.rest = s.rest[n:]
	return b
}

func (s *scanner) uint32() int {
	if b := s.take(4); b != nil {
		return int(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (s *scanner) uint64() uint64 {
	if b := s.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (s *scanner) text() string { return string(s.take(s.uint32())) }

// encodeTrigger returns what goes before the payload: the method, the timeout
// in nanoseconds, the texts and the headers.
func encodeTrigger(t Trigger) []byte {
	b := make([]byte, 0, 64+len(t.ID)+len(t.Subject)+len(t.Reply))
	b = append(b, byte(methodInvoke))
	b = binary.BigEndian.AppendUint64(b, uint64(max(t.Timeout, 0)))
	b = appendText(b, t.ID)
	b = appendText(b, t.Subject)
	b = appendText(b, t.Reply)
	return appendHeader(b, t.Header)
}

func appendHeader(b []byte, header map[string][]string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(countHeaders(header)))
	for key, values := range header {
		for _, v := range values {
			b = appendText(appendText(b, key), v)
		}
	}
	return b
}

// maxHeaders is how many headers a reply may have: each takes much more memory
// than it has bytes.
const maxHeaders = 1000

func countHeaders(header map[string][]string) (n int) {
	for _, values := range header {
		n += len(values)
	}
	return n
}

// header reads what appendHeader wrote, unless it is too much; it is nil if that
// is empty.
func (s *scanner) header(most int) (header map[string][]string) {
	n := s.uint32()
	if n > most {
		s.err = errMessage
	}
	for ; n > 0 && s.err == nil; n-- {
		if header == nil {
			header = map[string][]string{}
		}
		key := s.text()
		header[key] = append(header[key], s.text())
	}
	return header
}

func decodeTrigger(body []byte) (Trigger, error) {
	s := scanner{rest: body}
	var t Trigger
	t.Timeout = time.Duration(s.uint64() & (1<<63 - 1))
	t.ID, t.Subject, t.Reply = s.text(), s.text(), s.text()
	t.Header = s.header(math.MaxInt)
	t.Payload = s.rest
	return t, s.err
}

func encodeResult(r Result) (head, payload []byte) {
	head = binary.BigEndian.AppendUint64(make([]byte, 0, 12), uint64(r.Elapsed))
	return appendHeader(head, r.Header), r.Payload
}

func decodeResult(body []byte) (Result, error) {
	s := scanner{rest: body}
	r := Result{Elapsed: time.Duration(s.uint64() & (1<<63 - 1)), Header: s.header(maxHeaders)}
	r.Payload = s.rest
	return r, s.err
}

// appendArgs writes texts with their names.
func appendArgs(b []byte, args map[string]string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(args)))
	for name, value := range args {
		b = appendText(appendText(b, name), value)
	}
	return b
}

// maxArgs is how many arguments a message to or from a host service may have.
const maxArgs = 16

// args reads what appendArgs wrote; it is nil if that is empty.
func (s *scanner) args() (args map[string]string) {
	n := s.uint32()
	if n > maxArgs {
		s.err = errMessage
	}
	for ; n > 0 && s.err == nil; n-- {
		if args == nil {
			args = map[string]string{}
		}
		name := s.text()
		args[name] = s.text()
	}
	return args
}

// encodeHostCall returns what goes before the payload.
func encodeHostCall(c HostCall) []byte {
	b := make([]byte, 0, 128)
	b = append(b, byte(methodHost))
	b = binary.BigEndian.AppendUint64(b, uint64(max(c.Timeout, 0)))
	b = appendText(appendText(appendText(b, c.ID), c.Service), c.Method)
	return appendHeader(appendArgs(b, c.Args), c.Header)
}

func decodeHostCall(body []byte) (HostCall, error) {
	s := scanner{rest: body}
	var c HostCall
	c.Timeout = time.Duration(s.uint64() & (1<<63 - 1))
	c.ID, c.Service, c.Method = s.text(), s.text(), s.text()
	c.Args = s.args()
	c.Header = s.header(maxHeaders)
	c.Payload = s.rest
	return c, s.err
}

func encodeMessage(m Message) (head, payload []byte) {
	return appendHeader(appendArgs(nil, m.Args), m.Header), m.Payload
}

func decodeMessage(body []byte) (Message, error) {
	s := scanner{rest: body}
	m := Message{Args: s.args(), Header: s.header(math.MaxInt)}
	m.Payload = s.rest
	return m, s.err
}

func encodeFailure(err error) []byte {
	return append(appendText(nil, string(nex.CodeOf(err))), err.Error()...)
}

// decodeFailure always returns an error with a code; texts are cut to a sane
// length.
func decodeFailure(body []byte) error {
	s := scanner{rest: body}
	code := nex.Code(s.text())
	if s.err != nil || !code.Known() {
		return nex.Errorf(nex.Internal, "the agent failed without a reason")
	}
	return &nex.Error{Code: code, Message: string(s.rest[:min(len(s.rest), maxText)])}
}

func encodeLog(id string, level slog.Level, text string) []byte {
	b := append([]byte{topicLog}, byte(int8(max(-128, min(127, level)))))
	return append(appendText(b, id), text[:min(len(text), maxText)]...)
}

func decodeLog(body []byte) (id string, level slog.Level, text string, err error) {
	s := scanner{rest: body}
	if b := s.take(1); b != nil {
		level = slog.Level(int8(b[0]))
	}
	id = s.text()
	return id, level, string(s.rest[:min(len(s.rest), maxText)]), s.err
}

// encodePut returns what goes before a piece of an artifact.
func encodePut(id string) []byte { return appendText([]byte{byte(methodPut)}, id) }

func decodePut(body []byte) (id string, piece []byte, err error) {
	s := scanner{rest: body}
	id = s.text()
	return id, s.rest, s.err
}

func encodeJSON(first byte, v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	return append([]byte{first}, data...), nil
}

// encodePing: the time at the node in nanoseconds since 1970, as 8 bytes. Nodes of
// before send none, and agents of before ignore it.
func encodePing(now time.Time) []byte {
	return binary.BigEndian.AppendUint64([]byte{byte(methodPing)}, uint64(now.UnixNano()))
}

// decodePing returns false if there is no time in it.
func decodePing(b []byte) (time.Time, bool) {
	if len(b) != 8 {
		return time.Time{}, false
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(b))), true
}
