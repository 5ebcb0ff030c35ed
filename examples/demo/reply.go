//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

const (
	// patience is how long a deployed workload may take to answer.
	patience = 30 * time.Second
	// pause is how long to wait before the next try.
	pause = 20 * time.Millisecond
)

// call is a request and what its reply must be.
type call struct {
	subject, request string
	check            check
}

// check returns an error that tells how a reply is not as expected.
type check func(*nats.Msg) error

// expect sends a request, prints it with its reply, and checks the reply.
func (n *nex) expect(ctx context.Context, c call) error {
	reply, err := n.ask(ctx, c.subject, c.request)
	if err != nil {
		return fmt.Errorf("request to %s: %w", c.subject, err)
	}
	printCall(c.subject, c.request, string(reply.Data))
	if err := c.check(reply); err != nil {
		return fmt.Errorf("reply of %s to %q: %w", c.subject, c.request, err)
	}
	return nil
}

// expectNobody sends a request that nobody must be there to answer.
func (n *nex) expectNobody(ctx context.Context, subject, request string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reply, err := n.conn.RequestWithContext(ctx, subject, []byte(request))
	switch {
	case err == nil:
		return fmt.Errorf("%s still answers: %q", subject, reply.Data)
	case !errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("request to %s: got %w, want no responders", subject, err)
	}
	printCall(subject, request, "(no responders)")
	return nil
}

func printCall(subject, request, reply string) {
	fmt.Printf("  %-12s %-12s →  %s\n", subject, request, reply)
}

// ask sends a request, again and again while nobody is there: a service needs a
// moment after it was deployed.
func (n *nex) ask(ctx context.Context, subject, request string) (reply *nats.Msg, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = eventually(ctx, func() (bool, error) {
		reply, err = n.conn.RequestWithContext(ctx, subject, []byte(request))
		return !errors.Is(err, nats.ErrNoResponders), err
	})
	return reply, err
}

// eventually tries until it is done or ctx ends, and returns the last error.
func eventually(ctx context.Context, try func() (done bool, err error)) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		done, err := try()
		if done {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// text wants exactly these bytes.
func text(want string) check {
	return func(reply *nats.Msg) error {
		if got := string(reply.Data); got != want {
			return fmt.Errorf("got %q, want %q", got, want)
		}
		return nil
	}
}

// object wants this JSON, with members in any order.
func object(want string) check {
	return func(reply *nats.Msg) error {
		var got, wanted any
		if err := json.Unmarshal([]byte(want), &wanted); err != nil {
			return fmt.Errorf("want: %w", err)
		}
		if err := json.Unmarshal(reply.Data, &got); err != nil || !reflect.DeepEqual(got, wanted) {
			return fmt.Errorf("got %s, want %s", reply.Data, want)
		}
		return nil
	}
}

// failure wants an error in the header, as services of NATS report it.
func failure(want string) check {
	return func(reply *nats.Msg) error {
		if got := reply.Header.Get(micro.ErrorHeader); got != want {
			return fmt.Errorf("got error %q, want %q", got, want)
		}
		return nil
	}
}

// service wants the answer of a NATS micro service to a ping.
func service(want string) check {
	return func(reply *nats.Msg) error {
		var got micro.Ping
		if err := json.Unmarshal(reply.Data, &got); err != nil {
			return fmt.Errorf("got %q: %w", reply.Data, err)
		}
		if got.Name != want || got.Type != micro.PingResponseType {
			return fmt.Errorf("got %s, want a ping response of %s", reply.Data, want)
		}
		return nil
	}
}
