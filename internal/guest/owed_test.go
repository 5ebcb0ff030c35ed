package guest

import (
	"bufio"
	"net"
	"testing"
)

// TestAnswersNobodyTakesAreBounded has an agent ask for long answers and take
// none: the node keeps only so many bytes of them.
func TestAnswersNobodyTakesAreBounded(t *testing.T) {
	const calls = 7
	long := make([]byte, MaxMessage)
	served := make(chan struct{}, calls)
	near, far := net.Pipe()
	l := newLink(near, func(*serving, method, []byte) (head, reply []byte, err error) {
		served <- struct{}{}
		return nil, long, nil
	}, nil)
	l.guarded = true
	l.start()
	defer l.close()
	for id := range uint32(calls) {
		if _, err := far.Write(appendFrame(nil, frame{kind: kindCall, id: id + 1, body: []byte{byte(methodHost)}})); err != nil {
			t.Fatal(err)
		}
	}
	for range calls {
		<-served
	}
	r := bufio.NewReader(far)
	answered, refused := 0, 0
	for answered+refused < calls {
		f, err := readFrame(r)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case f.kind == kindFailure:
			refused++
		case !f.more:
			answered++
		}
	}
	if most := maxOwed / MaxMessage; answered > most+1 { // one may have been taken before the last was refused
		t.Errorf("%d answers of %d bytes were kept, want at most %d", answered, len(long), most)
	}
}
