package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// maxMessage bounds a message of QMP that is read. QEMU's are short; one that was
// taken over by its guest may send what it likes.
const maxMessage = 64 << 10

// monitor is a connection to QEMU's monitor: QMP, a line of JSON each way for a
// command, and events in between, which nobody here wants. See the QEMU QMP
// Protocol Specification.
type monitor struct {
	conn net.Conn
	gone chan struct{} // closed when QEMU says no more

	mu      sync.Mutex
	last    uint64                  // id of the latest command
	waiting map[uint64]chan message // for the answer to a command; 0 is for the greeting
}

// message is anything that QEMU says. The greeting has no id.
type message struct {
	ID     uint64          `json:"id"`
	Event  string          `json:"event"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

var errMonitorGone = errors.New("QEMU has closed its monitor")

// newMonitor takes over a connection, and returns when QEMU takes commands or ctx
// ends. An error closes conn.
func newMonitor(ctx context.Context, conn net.Conn) (*monitor, error) {
	m := &monitor{conn: conn, gone: make(chan struct{}), waiting: map[uint64]chan message{}}
	greeting := make(chan message, 1)
	m.waiting[0] = greeting
	go m.read()
	_, err := m.await(ctx, 0, greeting)
	if err == nil {
		err = m.execute(ctx, "qmp_capabilities", nil)
	}
	if err != nil {
		_ = conn.Close() // the error is the one to report
		<-m.gone
		return nil, err
	}
	return m, nil
}

// read hands out answers until the connection ends.
func (m *monitor) read() {
	defer close(m.gone)
	defer m.conn.Close()
	lines := bufio.NewScanner(m.conn)
	lines.Buffer(make([]byte, 0, 4<<10), maxMessage)
	for lines.Scan() {
		var msg message
		if json.Unmarshal(lines.Bytes(), &msg) != nil {
			return
		}
		if msg.Event != "" {
			continue
		}
		m.mu.Lock()
		answer := m.waiting[msg.ID]
		delete(m.waiting, msg.ID)
		m.mu.Unlock()
		if answer != nil {
			answer <- msg // it has room for one
		}
	}
}

// execute has QEMU execute a command, and returns when it has or ctx ends.
func (m *monitor) execute(ctx context.Context, command string, arguments any) error {
	answer := make(chan message, 1)
	m.mu.Lock()
	m.last++
	id := m.last
	m.waiting[id] = answer
	err := m.send(id, command, arguments)
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	msg, err := m.await(ctx, id, answer)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if msg.Error != nil {
		return fmt.Errorf("%s: QEMU: %s", command, msg.Error.Desc)
	}
	return nil
}

// writeTimeout bounds how long QEMU may take to read a command: there is room
// for thousands.
const writeTimeout = time.Second

func (m *monitor) send(id uint64, command string, arguments any) error {
	text, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, arguments, id})
	if err != nil {
		return err
	}
	if err := m.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err = m.conn.Write(append(text, '\n'))
	return err
}

func (m *monitor) await(ctx context.Context, id uint64, answer chan message) (message, error) {
	defer func() {
		m.mu.Lock()
		delete(m.waiting, id)
		m.mu.Unlock()
	}()
	select {
	case msg := <-answer:
		return msg, nil
	case <-m.gone:
		select {
		case msg := <-answer: // the last it said
			return msg, nil
		default:
			return message{}, errMonitorGone
		}
	case <-ctx.Done():
		return message{}, ctx.Err()
	}
}
