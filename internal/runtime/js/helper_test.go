package js

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"nex/internal/runtime"
)

// generous answers everything with the same payload.
type generous []byte

func (g generous) Call(context.Context, string, string, runtime.Message) (runtime.Message, error) {
	return runtime.Message{Payload: g}, nil
}

// silent answers when the call ends.
type silent struct{}

func (silent) Call(ctx context.Context, _, _ string, _ runtime.Message) (runtime.Message, error) {
	<-ctx.Done()
	return runtime.Message{}, ctx.Err()
}

func asked(payload []byte) []byte {
	about := strings.Join([]string{"objectstore", "get", "name", "a"}, "\x00")
	return append(append(binary.LittleEndian.AppendUint32(nil, uint32(len(about))), about...), payload...)
}

// TestAnswersThatNobodyFetchesAreBounded has code begin calls with long answers
// and fetch none: they are in the agent's memory, not in that of the code.
func TestAnswersThatNobodyFetchesAreBounded(t *testing.T) {
	const calls = 20
	h := NewHelper(Source{Host: generous(make([]byte, maxBegunBytes/10))})
	defer h.Close()
	for range calls {
		if h.Ask(t.Context(), "host.begin", asked(nil)) == nil {
			t.Fatal("refused")
		}
	}
	h.running.Wait()
	kept, refused := 0, 0
	for a := h.Ask(t.Context(), "host.ended", nil); a != nil; a = h.Ask(t.Context(), "host.ended", nil) {
		if bytes.Contains(a[:min(len(a), 200)], []byte("overloaded")) {
			refused++
		} else {
			kept++
		}
	}
	if kept < 1 || kept > 10 || kept+refused != calls {
		t.Errorf("%d answers were kept and %d refused, of %d", kept, refused, calls)
	}
	if h.Ask(t.Context(), "host.begin", asked(nil)) == nil {
		t.Error("refused when all were fetched")
	}
}

// TestCallsThatAreUnderWayAreBounded has code begin calls that carry much.
func TestCallsThatAreUnderWayAreBounded(t *testing.T) {
	h := NewHelper(Source{Host: silent{}})
	defer h.Close()
	long := asked(make([]byte, maxBegunBytes/10))
	begun := 0
	for range 20 {
		if h.Ask(t.Context(), "host.begin", long) != nil {
			begun++
		}
	}
	if begun < 1 || begun > 10 {
		t.Errorf("%d calls of %d bytes are under way", begun, len(long))
	}
	h.Drop()
	if h.Ask(t.Context(), "host.begin", long) == nil {
		t.Error("refused to the next call of the function")
	}
}
