package guest

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// FuzzReadFrame checks that what is read is what would be written.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 2, 1, 0, 0, 0, 0, 0, 9, 'h', 'i'})
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		fr, err := readFrame(r)
		if err != nil {
			return
		}
		if out := appendFrame(nil, fr); !bytes.HasPrefix(data, out) {
			t.Fatalf("% x was read and written as % x", data, out)
		}
	})
}

// FuzzDecode feeds every message decoder.
func FuzzDecode(f *testing.F) {
	f.Add(encodeTrigger(Trigger{ID: "w", Subject: "s", Reply: "r", Header: map[string][]string{"k": {"v"}}})[1:])
	f.Add(encodeLog("w", 4, "text")[1:])
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 3, 233})
	f.Add(encodeFailure(io.EOF))
	f.Add(encodePut("w")[1:])
	host := HostCall{ID: "w", Service: "kv", Method: "get", Message: Message{Args: map[string]string{"key": "k"}, Header: map[string][]string{"h": {"v"}}}}
	f.Add(encodeHostCall(host)[1:])
	answer, _ := encodeMessage(host.Message)
	f.Add(answer)
	f.Fuzz(func(t *testing.T, data []byte) {
		if tr, err := decodeTrigger(data); err == nil && tr.Timeout < 0 {
			t.Errorf("timeout %d", tr.Timeout)
		}
		if r, err := decodeResult(data); err == nil && countHeaders(r.Header) > maxHeaders {
			t.Errorf("%d headers", countHeaders(r.Header))
		}
		if c, err := decodeHostCall(data); err == nil && (c.Timeout < 0 || len(c.Args) > maxArgs || countHeaders(c.Header) > maxHeaders) {
			t.Errorf("%s, %d arguments, %d headers", c.Timeout, len(c.Args), countHeaders(c.Header))
		}
		if m, err := decodeMessage(data); err == nil && len(m.Args) > maxArgs {
			t.Errorf("%d arguments", len(m.Args))
		}
		_, _, _, _ = decodeLog(data)
		_, _, _ = decodePut(data)
		if decodeFailure(data) == nil {
			t.Error("a failure decoded to no error")
		}
	})
}

// FuzzLink plays an agent that sends arbitrary bytes after its hello.
func FuzzLink(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add(appendFrame(nil, frame{kind: kindCall, id: 1, body: encodeHostCall(HostCall{ID: "w", Service: "kv", Method: "get"})}))
	f.Fuzz(func(t *testing.T, data []byte) {
		near, far := net.Pipe()
		go func() {
			_, _ = io.Copy(io.Discard, far)
		}()
		go func() {
			_, _ = far.Write(append([]byte{0, 0, 0, 14, 1, 0, 0, 0, 0, 0, 0, 0}, `{"protocol":1}`...))
			_, _ = far.Write(data)
			_ = far.Close()
		}()
		c, err := Greet(t.Context(), near)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-c.Done():
		case <-time.After(10 * time.Second):
			t.Fatal("the link outlived its stream")
		}
		c.Close()
	})
}
