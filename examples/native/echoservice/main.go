// Command echoservice is a NATS service in Go: it answers every request on
// svc.echo with the request's own bytes, and can be found and measured like
// any service of the NATS micro framework.
//
//	CGO_ENABLED=0 go build -o echoservice ./examples/native/echoservice
//
// Nothing in it knows of Nex: it is configured by its environment, prints what
// it does, and ends cleanly when it is told to.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "echoservice:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, then answers what has arrived and returns.
func run(ctx context.Context) error {
	url := os.Getenv("NATS_URL")
	if url == "" {
		url = nats.DefaultURL
	}
	closed := make(chan struct{})
	conn, err := nats.Connect(url,
		nats.Name("EchoService"),
		nats.MaxReconnects(-1),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", url, err)
	}
	defer conn.Close()

	_, err = micro.AddService(conn, micro.Config{
		Name:        "EchoService",
		Version:     "1.0.0",
		Description: "answers with the request",
		Endpoint: &micro.EndpointConfig{
			Subject: "svc.echo",
			Handler: micro.HandlerFunc(echo),
		},
	})
	if err != nil {
		return fmt.Errorf("add service: %w", err)
	}
	fmt.Println("serving svc.echo on", conn.ConnectedUrlRedacted())

	select {
	case <-closed:
		return errors.New("the connection was closed")
	case <-ctx.Done():
	}
	fmt.Println("stopping")
	if err := conn.Drain(); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	<-closed
	return nil
}

func echo(req micro.Request) {
	if err := req.Respond(req.Data()); err != nil {
		fmt.Fprintln(os.Stderr, "echoservice: respond:", err)
	}
}
