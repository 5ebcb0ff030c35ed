// Command hostguest uses host services through the package nexhost: the subject
// says what it does with the payload. It tells what came of it.
package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"nex/examples/wasm/nexhost"
)

var (
	kv        nexhost.KV
	objects   nexhost.ObjectStore
	messaging nexhost.Messaging
	web       nexhost.HTTP
	header    = map[string][]string{"A": {"1", "2"}}
)

func main() {
	payload, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(run(os.Args[1], payload))
}

// tell shows values and an error with its code.
func tell(err error, values ...any) string {
	if err != nil {
		return fmt.Sprintf("%s: %v", nexhost.CodeOf(err), err)
	}
	return fmt.Sprintf("%q", values)
}

func run(subject string, payload []byte) string {
	switch subject {
	case "round.trip":
		if _, err := kv.Set("k", payload); err != nil {
			return tell(err)
		}
		value, err := kv.Get("k")
		if err != nil {
			return tell(err)
		}
		return string(value)
	case "goroutines":
		return goroutines()
	case "message":
		in, err := nexhost.Received()
		if err == nil {
			err = nexhost.RespondWith(map[string][]string{"Lost": {"x"}})
		}
		if err == nil {
			err = nexhost.RespondWith(map[string][]string{"Was": in.Header["A"]})
		}
		return tell(err, in.Subject, in.Reply, time.Until(in.Deadline) > 0, in.Header)
	case "message.other":
		_, err := nexhost.Call("message", "other", nexhost.Message{})
		return tell(err)
	case "http.do":
		r, err := web.Do("DELETE", "http://x/?a=b", nexhost.HTTPRequest{Header: header, Body: payload, Timeout: time.Second, Redirect: "manual"})
		return tell(err, r)
	case "http.get":
		r, err := web.Get("http://x")
		return tell(err, r)
	case "http.post":
		r, err := web.Post("http://x", "text/plain", payload)
		return tell(err, r)
	}
	if r, ok := stores(subject, payload); ok {
		return r
	}
	return messages(subject, payload)
}

func stores(subject string, payload []byte) (string, bool) {
	switch subject {
	case "kv.get":
		value, err := kv.Get("k")
		return tell(err, value), true
	case "kv.set":
		revision, err := kv.Set("k", payload)
		return tell(err, revision), true
	case "kv.delete":
		return tell(kv.Delete("k")), true
	case "kv.keys":
		keys, err := kv.Keys()
		return tell(err, keys), true
	case "objectstore.get":
		data, err := objects.Get("o")
		return tell(err, data), true
	case "objectstore.put":
		o, err := objects.Put("o", payload)
		return tell(err, o), true
	case "objectstore.delete":
		return tell(objects.Delete("o")), true
	case "objectstore.list":
		list, err := objects.List()
		return tell(err, list), true
	}
	return "", false
}

func messages(subject string, payload []byte) string {
	switch subject {
	case "messaging.publish":
		return tell(messaging.Publish("s", header, payload))
	case "messaging.request":
		m, err := messaging.Request("s", header, payload, 1500*time.Millisecond)
		return tell(err, m.Header, m.Payload)
	case "messaging.requestMany":
		all, err := messaging.RequestMany("s", nil, payload, nexhost.Until{Timeout: time.Second, Count: 3, Quiet: time.Microsecond})
		return tell(err, all)
	}
	m, err := nexhost.Call("other", "thing", nexhost.Message{Args: map[string]string{"a": "b"}, Header: header, Payload: payload})
	return tell(err, m.Args, m.Header, m.Payload)
}

// goroutines asks from several at once.
func goroutines() string {
	var wg sync.WaitGroup
	var mu sync.Mutex
	wrong := 0
	for n := range 50 {
		wg.Go(func() {
			want := fmt.Sprint(make([]int, n))
			m, err := nexhost.Call("test", "mirror", nexhost.Message{Payload: []byte(want)})
			if err != nil || string(m.Payload) != want {
				mu.Lock()
				defer mu.Unlock()
				wrong++
			}
		})
	}
	wg.Wait()
	return fmt.Sprintf("%d wrong", wrong)
}
