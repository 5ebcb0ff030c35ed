//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nex"
)

// hostCall is one call of a host service beside the same call made by a Go
// program, which has a process of its own as well.
type hostCall struct {
	Go    float64 `json:"go_us"`
	JS    float64 `json:"js_us"`
	Ratio float64 `json:"ratio"`
}

const (
	// hostSubject is what the caller's kind and the name of the call follow:
	// each answers a number with the microseconds that one of so many calls took.
	hostSubject = "bench.host."
	// mirrorSubject is where messages are answered with themselves.
	mirrorSubject = "bench.mirror"
	// hostCalls is how many calls follow each other, and hostRounds how often.
	hostCalls, hostRounds = 500, 7
)

// hostScript makes host calls in JavaScript.
const hostScript = `const calls = {
  "kv.get": () => hostServices.kv.get("key"),
  "kv.set": () => hostServices.kv.set("key", "0123456789abcdef"),
  "messaging.request": () => hostServices.messaging.request("` + mirrorSubject + `", "0123456789abcdef"),
};
(subject, payload, ctx) => {
  calls["kv.set"]();
  const call = calls[subject.split(".").slice(3).join(".")], n = Number(ctx.text()), begin = performance.now();
  for (let i = 0; i < n; i++) call();
  return String((performance.now() - begin) * 1000 / n);
}`

// goCalls makes the same calls with the client library.
func goCalls(nc *nats.Conn) error {
	ctx := context.Background()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	kv, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "BENCH_KV"})
	if err != nil {
		return fmt.Errorf("make a bucket: %w", err)
	}
	value := []byte("0123456789abcdef")
	calls := map[string]func() error{
		"kv.get":            func() error { _, err := kv.Get(ctx, "key"); return err },
		"kv.set":            func() error { _, err := kv.Put(ctx, "key", value); return err },
		"messaging.request": func() error { _, err := nc.Request(mirrorSubject, value, patience); return err },
	}
	if err := calls["kv.set"](); err != nil {
		return err
	}
	for name, call := range calls {
		_, err := nc.Subscribe(hostSubject+"go."+name, func(m *nats.Msg) {
			n, err := strconv.Atoi(string(m.Data))
			begin := time.Now()
			for i := 0; i < n && err == nil; i++ {
				err = call()
			}
			answer := fmt.Sprint(microseconds(time.Since(begin)) / float64(n))
			if err != nil {
				answer = err.Error()
			}
			_ = m.Respond([]byte(answer)) // who asked hears nothing otherwise
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hostServices measures host calls: by turns, so that what disturbs the machine
// disturbs both.
func (s *stage) hostServices(ctx context.Context, r *report) error {
	if _, err := s.nc.Subscribe(mirrorSubject, func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		return err
	}
	w, err := s.upload(ctx, "host", []byte(hostScript))
	if err != nil {
		return err
	}
	w.Type, w.TriggerSubjects, w.Settings.FunctionTimeoutMS = nex.V8, []string{hostSubject + "js.>"}, int(patience.Milliseconds())
	id, err := s.deploy(ctx, w)
	if err != nil {
		return err
	}
	r.Host = map[string]hostCall{}
	for _, name := range []string{"kv.get", "kv.set", "messaging.request"} {
		var took [2][]float64
		for range hostRounds {
			for i, who := range []string{"go.", "js."} {
				m, err := s.nc.Request(hostSubject+who+name, []byte(strconv.Itoa(hostCalls)), patience)
				if err != nil {
					return fmt.Errorf("%s%s: %w", who, name, err)
				}
				one, err := strconv.ParseFloat(string(m.Data), 64)
				if err != nil {
					return fmt.Errorf("%s%s: %s", who, name, m.Data)
				}
				took[i] = append(took[i], one)
			}
		}
		slices.Sort(took[0])
		slices.Sort(took[1])
		c := hostCall{Go: took[0][hostRounds/2], JS: took[1][hostRounds/2]}
		c.Ratio = c.JS / c.Go
		r.Host[name] = c
	}
	return s.stop(ctx, w.Name, id)
}
