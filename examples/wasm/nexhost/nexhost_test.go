package nexhost

import (
	"encoding/binary"
	"math"
	"reflect"
	"testing"
	"time"
)

// TestEncode compares with the example in docs/host-services.md.
func TestEncode(t *testing.T) {
	want := "\x02\x00\x00\x00kv\x03\x00\x00\x00get\x01\x00\x00\x00\x03\x00\x00\x00key\x01\x00\x00\x00a\x00\x00\x00\x00"
	if got := encode("kv", "get", Message{Args: map[string]string{"key": "a"}}); string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestDecode reads an answer, which looks like a request without a method.
func TestDecode(t *testing.T) {
	want := Message{Args: map[string]string{"a": "1", "": ""}, Header: map[string][]string{"B": {"2", "3"}}, Payload: []byte("\x00\xff")}
	request := encode("", "", want)
	if got, err := decode(request[4:]); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	_, err := decode(append(appendText(nil, "denied"), "\x00\x00\x00\x00\x00\x00\x00\x00no"...))
	if CodeOf(err) != "denied" || err.Error() != "no" {
		t.Errorf("%q: %v", CodeOf(err), err)
	}
}

func TestSplit(t *testing.T) {
	got, err := split([]byte("\x00\x00\x00\x02ab\x00\x00\x00\x00\x00\x00\x00\x01c"))
	if want := [][]byte{[]byte("ab"), {}, []byte("c")}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	for _, bad := range [][]byte{{0}, {0, 0, 0, 2, 'a'}, binary.BigEndian.AppendUint32(nil, math.MaxUint32)} {
		if got, err := split(bad); err == nil {
			t.Errorf("%q becomes %q", bad, got)
		}
	}
}

func TestElsewhere(t *testing.T) {
	var m Messaging
	if _, err := m.Request("a", nil, nil, time.Second); CodeOf(err) != "unsupported" {
		t.Errorf("%q: %v", CodeOf(err), err)
	}
	if code := CodeOf(nil); code != "" {
		t.Errorf("the code of no error is %q", code)
	}
}
