package guest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Sizes of the link, in bytes.
const (
	headerSize = 12
	// maxFrame is the largest body of one frame; longer messages travel in
	// several, so that they do not hold up short ones.
	maxFrame = 256 << 10
	// MaxMessage is the largest call or reply: the largest NATS payload
	// and room for its headers.
	MaxMessage = 65 << 20
)

// kind says what a frame is part of.
type kind uint8

const (
	kindHello   kind = 1 + iota // agent to node, first and once
	kindCall                    // a question; the body's first byte is the method
	kindReply                   // the answer to the call of the same id
	kindFailure                 // the other answer: code and text
	kindCancel                  // the caller no longer waits; no body
	kindNotice                  // no answer wanted; the body's first byte is the topic
	kindEnd                     // one past the last
)

const flagMore = 1 // further frames of the same kind and id follow

// frame is one unit on the wire:
//
//	0  uint32  length of the body, big endian
//	4  uint8   kind
//	5  uint8   flags
//	6  uint16  zero
//	8  uint32  id of the call, 0 for hello and notices
//	12 body
//
// The body is written in two parts so that payloads need not be copied behind
// their method's fields.
type frame struct {
	kind       kind
	more       bool
	id         uint32
	head, body []byte
}

var errFrame = errors.New("malformed frame")

func appendFrame(b []byte, f frame) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.head)+len(f.body)))
	flags := byte(0)
	if f.more {
		flags = flagMore
	}
	b = append(b, byte(f.kind), flags, 0, 0)
	b = binary.BigEndian.AppendUint32(b, f.id)
	return append(append(b, f.head...), f.body...)
}

// whole reports whether the next frame is here already, so that to read it does
// not wait.
func whole(r *bufio.Reader) bool {
	n := r.Buffered()
	if n < headerSize {
		return false
	}
	h, err := r.Peek(headerSize)
	return err == nil && uint64(n) >= headerSize+uint64(binary.BigEndian.Uint32(h))
}

// readFrame returns io.EOF between frames only; everything it does not
// understand is an error, never skipped.
func readFrame(r *bufio.Reader) (frame, error) {
	h, err := r.Peek(headerSize)
	if err != nil {
		if len(h) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(h[0:])
	f := frame{kind: kind(h[4]), more: h[5] == flagMore, id: binary.BigEndian.Uint32(h[8:])}
	if n > maxFrame || f.kind == 0 || f.kind >= kindEnd || h[5]&^flagMore != 0 || h[6] != 0 || h[7] != 0 {
		return frame{}, fmt.Errorf("%w: % x", errFrame, h)
	}
	if _, err := r.Discard(headerSize); err != nil {
		return frame{}, err
	}
	f.body = make([]byte, n)
	if _, err := io.ReadFull(r, f.body); err != nil {
		return frame{}, fmt.Errorf("read frame body: %w", io.ErrUnexpectedEOF)
	}
	return f, nil
}

// split cuts a message into frames.
func split(k kind, id uint32, head, body []byte) []frame {
	var frames []frame
	for {
		f := frame{kind: k, id: id, head: head[:min(len(head), maxFrame)]}
		f.body = body[:min(len(body), maxFrame-len(f.head))]
		head, body = head[len(f.head):], body[len(f.body):]
		f.more = len(head)+len(body) > 0
		frames = append(frames, f)
		if !f.more {
			return frames
		}
	}
}
