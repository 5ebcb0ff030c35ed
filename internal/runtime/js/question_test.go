package js

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzQuestion feeds what code may have put into a host call.
func FuzzQuestion(f *testing.F) {
	f.Add([]byte("\x0e\x00\x00\x00kv\x00get\x00key\x00k"))
	f.Add([]byte("\x20\x00\x00\x00kv\x00set\x00key\x00k\x00\x00name\x00value\x00name\x00v2payload"))
	f.Add([]byte{255, 255, 255, 255, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := readQuestion(data)
		if err != nil {
			return
		}
		size := int(binary.LittleEndian.Uint32(data))
		if !bytes.Equal(q.Payload, data[4+size:]) || len(q.service) > size {
			t.Errorf("% x was read as %+v", data, q)
		}
	})
}
