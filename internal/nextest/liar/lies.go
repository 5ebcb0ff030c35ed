package liar

import (
	"encoding/binary"
	"math/rand/v2"
)

// noise is bytes without a meaning.
func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// huge is the header of a frame that is as long as its length can say.
var huge = []byte{0xff, 0xff, 0xff, 0xff, notice, 0, 0, 0, 0, 0, 0, 0}

// hostCall is a call of a host service for a workload.
func hostCall(workload string, payload []byte) []byte {
	b := append([]byte{host}, 0, 0, 0, 0, 0x3b, 0x9a, 0xca, 0) // a second
	b = text(text(text(b, workload), "kv"), "get")
	b = binary.BigEndian.AppendUint32(b, 0) // arguments
	b = binary.BigEndian.AppendUint32(b, 0) // headers
	return append(b, payload...)
}

func logNotice(workload, line string) []byte {
	return frame(notice, false, 0, append(text([]byte{topicLog, 0}, workload), line...))
}

// result is what a function might answer.
func result(payload []byte) []byte { return append(make([]byte, 12), payload...) }

var lies = []Lie{
	{Name: "noise for a hello", Early: true, tell: func(l *liar) error { return l.write(noise(4096)) }},
	{Name: "half a hello", Early: true, tell: func(l *liar) error {
		if err := l.write(frame(hello, false, 0, []byte(`{"protocol":1}`))[:20]); err != nil {
			return err
		}
		return l.wait()
	}},
	{Name: "no hello", Early: true, tell: (*liar).wait},
	{Name: "huge hello", Early: true, tell: func(l *liar) error { return l.write(huge) }},
	{Name: "hello of another protocol", Early: true, tell: func(l *liar) error {
		version := string(make([]byte, 200<<10))
		return l.write(frame(hello, false, 0, []byte(`{"protocol":7,"version":"`+version+`"}`)))
	}},

	{Name: "noise", tell: func(l *liar) error { return l.write(noise(64 << 10)) }},
	{Name: "huge length", tell: func(l *liar) error { return l.write(huge) }},
	{Name: "second hello", tell: func(l *liar) error { return l.write(frame(hello, false, 0, []byte(`{"protocol":1}`))) }},
	{Name: "answer to no call", tell: func(l *liar) error { return l.write(frame(reply, false, 0xdeadbeef, result(nil))) }},
	{Name: "answer to another call", tell: func(l *liar) error { return l.write(frame(reply, false, l.asked+1000, result(nil))) }},
	{Name: "two failures for one call", tell: func(l *liar) error {
		b := frame(failure, false, l.asked, append(text(nil, "unavailable"), "first"...))
		return l.write(append(b, b...))
	}},
	{Name: "answer that is no result", tell: func(l *liar) error { return l.write(frame(reply, false, l.asked, []byte("x"))) }},
	{Name: "answer of endless headers", tell: func(l *liar) error {
		return l.write(frame(reply, false, l.asked, append(make([]byte, 8), 0xff, 0xff, 0xff, 0xff, 1)))
	}},
	{Name: "exit of what does not exit", tell: func(l *liar) error {
		b := frame(notice, false, 0, append([]byte{topicExit}, `{"id":"`+l.workload+`","code":1}`...))
		return l.write(append(b, b...))
	}},
	{Name: "end in the middle", tell: func(l *liar) error {
		if err := l.write(frame(reply, false, l.asked, result(nil))[:14]); err != nil {
			return err
		}
		return l.conn.Close()
	}},

	{Name: "half a frame", Mute: true, tell: func(l *liar) error {
		if err := l.write(frame(reply, false, l.asked, result(nil))[:14]); err != nil {
			return err
		}
		return l.wait()
	}},
	{Name: "no answer", Mute: true, tell: (*liar).wait},
	{Name: "no reading", Mute: true, tell: (*liar).sit},

	{Name: "endless calls", tell: func(l *liar) error {
		return l.endless(func(i uint32) []byte { return frame(call, false, i, hostCall("nobody", nil)) })
	}},
	{Name: "endless long calls", Mute: true, tell: func(l *liar) error {
		piece := hostCall(l.workload, make([]byte, most-100))
		return l.endless(func(i uint32) []byte { return frame(call, i%250 != 0, (i-1)/250+1, piece) })
	}},
	{Name: "endless beginnings of calls", tell: func(l *liar) error {
		return l.endless(func(i uint32) []byte { return frame(call, true, i, []byte{host}) })
	}},
	{Name: "endless cancels", tell: func(l *liar) error {
		return l.endless(func(i uint32) []byte { return frame(cancel, false, i, nil) })
	}},
	{Name: "endless logs of nobody", tell: func(l *liar) error {
		return l.endless(func(uint32) []byte { return logNotice("nobody", "hello") })
	}},
	{Name: "endless exits of nobody", tell: func(l *liar) error {
		return l.endless(func(uint32) []byte {
			return frame(notice, false, 0, append([]byte{topicExit}, `{"id":"nobody","code":1}`...))
		})
	}},
	{Name: "endless logs", Mute: true, tell: func(l *liar) error {
		return l.endless(func(uint32) []byte { return logNotice(l.workload, "hello") })
	}},
}
