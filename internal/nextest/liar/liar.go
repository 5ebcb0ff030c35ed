// Package liar is a stand-in for an agent that lies to its node over the guest
// link: test support. It knows the link from its description alone, writes its
// frames itself, and imports nothing of this module, so that any program can be
// a liar: a goroutine, a child process, the init of a microVM.
//
// A liar says an honest hello, takes the artifact of the first workload that it is
// given, says that the workload runs, and lies when that is first called, or a
// little later if it is not. What its lie is says its caller, or the artifact: see
// [Artifact].
package liar

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Lie is one way to lie.
type Lie struct {
	Name string
	// Mute liars are found out by what they do not do, which takes as long as a
	// call may and some seconds. Nothing is wrong with what they say.
	Mute bool
	// Early liars lie instead of their hello.
	Early bool

	tell func(*liar) error
}

// uncalled is how long a liar waits for a call before it lies.
const uncalled = 500 * time.Millisecond

// prefix begins an artifact that says what the lie is to be.
const prefix = "lie "

// Artifact is that of a workload that has a liar lie in a way.
func Artifact(name string) []byte { return []byte(prefix + name) }

// Lies are all ways to lie.
func Lies() []Lie { return slices.Clone(lies) }

// Tell plays an agent that lies, until its link or ctx ends. Without a name it lies
// as the artifact says.
func Tell(ctx context.Context, name string, conn net.Conn) error {
	l := &liar{ctx: ctx, conn: conn, r: bufio.NewReader(conn)}
	defer l.end()
	defer conn.Close()
	if name != "" {
		if err := l.choose(name); err != nil {
			return err
		}
		if l.lie.Early {
			return l.lie.tell(l)
		}
	}
	if err := l.write(frame(hello, false, 0, []byte(`{"protocol":1,"version":"liar","types":["native","v8","wasm"]}`))); err != nil {
		return err
	}
	return l.listen()
}

// Kinds of frames, methods and topics, as the link has them.
const (
	hello, call, reply, failure, cancel, notice = 1, 2, 3, 4, 5, 6
	put, deploy, invoke                         = 1, 2, 3
	host                                        = 64
	topicLog, topicExit                         = 1, 2
	most                                        = 256 << 10 // bytes of a frame's body
)

type liar struct {
	ctx  context.Context
	conn net.Conn
	r    *bufio.Reader
	lie  Lie

	artifact []byte
	workload string     // its id, "" while there is none
	asked    uint32     // the call that is being lied to, 0 if there is none
	mu       sync.Mutex // held while lying, and by whoever decides to
	lying    bool
}

func (l *liar) choose(name string) error {
	i := slices.IndexFunc(lies, func(lie Lie) bool { return lie.Name == name })
	if i < 0 {
		return fmt.Errorf("there is no lie %q", name)
	}
	l.lie = lies[i]
	return nil
}

// frame makes one that is well formed.
func frame(kind byte, more bool, id uint32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	flags := byte(0)
	if more {
		flags = 1
	}
	b = binary.BigEndian.AppendUint32(append(b, kind, flags, 0, 0), id)
	return append(b, body...)
}

func text(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

func (l *liar) write(b []byte) error {
	_, err := l.conn.Write(b)
	return err
}

// endless writes frames until the link ends.
func (l *liar) endless(next func(i uint32) []byte) error {
	for i := uint32(1); ; {
		var b bytes.Buffer
		for b.Len() < 64<<10 {
			b.Write(next(i))
			i++
		}
		if err := l.write(b.Bytes()); err != nil {
			return err
		}
	}
}

// sit does nothing at all until ctx ends.
func (l *liar) sit() error {
	for l.ctx.Err() == nil {
		select {
		case <-l.ctx.Done():
		case <-time.After(time.Minute): // a program that waits for nothing is ended by its runtime
		}
	}
	return l.ctx.Err()
}

// wait returns when the link has ended.
func (l *liar) wait() error {
	_, err := io.Copy(io.Discard, l.conn)
	return err
}

// listen is honest until the first call of a workload, or until none has come
// for a while; then it lies.
func (l *liar) listen() error {
	for {
		var h [12]byte
		if _, err := io.ReadFull(l.r, h[:]); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint32(h[:]))
		if _, err := io.ReadFull(l.r, body); err != nil {
			return err
		}
		if h[4] != call || h[5] != 0 || len(body) == 0 {
			continue // a cancel, or a piece of something long: there is nothing to say yet
		}
		id := binary.BigEndian.Uint32(h[8:])
		if body[0] == invoke {
			return l.lieTo(id)
		}
		if err := l.honest(id, body); err != nil {
			return err
		}
	}
}

// end waits until nobody lies any more.
func (l *liar) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lying = true
}

// honest does what an agent does, or says that it has.
func (l *liar) honest(id uint32, body []byte) error {
	switch body[0] {
	case put:
		if n := binary.BigEndian.Uint32(body[1:]); len(body) >= 5+int(n) {
			l.artifact = append(l.artifact, body[5+n:]...)
		}
	case deploy:
		var d struct{ ID string }
		if err := json.Unmarshal(body[1:], &d); err != nil {
			return err
		}
		if name, ok := strings.CutPrefix(string(l.artifact), prefix); ok && l.lie.Name == "" {
			if err := l.choose(name); err != nil {
				return err
			}
		}
		l.mu.Lock()
		first := l.workload == ""
		l.workload = d.ID
		l.mu.Unlock()
		if first {
			time.AfterFunc(uncalled, func() { _ = l.lieTo(0) }) // the link's end ends it
		}
	}
	l.mu.Lock() // not into a lie
	defer l.mu.Unlock()
	return l.write(frame(reply, false, id, nil))
}

// lieTo lies once, to a call if there is one.
func (l *liar) lieTo(id uint32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lying || l.lie.tell == nil {
		return nil
	}
	l.lying, l.asked = true, id
	return l.lie.tell(l)
}
