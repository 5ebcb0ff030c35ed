package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/choria-io/fisk"
	"github.com/mattn/go-isatty"
	"github.com/nats-io/jsm.go/natscontext"
	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/node"
)

const defaultServer = "nats://127.0.0.1:4222"

// connOptions say which NATS system to use and as whom: the flags and
// variables of the nats CLI.
type connOptions struct {
	server, context, name  string
	user, password, creds  string
	nkey, inboxPrefix      string
	tlsCert, tlsKey, tlsCA string
	tlsFirst               bool
	timeout                time.Duration
	timeoutGiven           bool
	jsDomain               string
}

func (o *connOptions) addFlags(app *fisk.Application) {
	app.Flag("server", "NATS server URLs").Short('s').Envar("NATS_URL").PlaceHolder("URL").StringVar(&o.server)
	app.Flag("user", "User name or token").Envar("NATS_USER").StringVar(&o.user)
	app.Flag("password", "Password").Envar("NATS_PASSWORD").StringVar(&o.password)
	app.Flag("creds", "Credentials file").Envar("NATS_CREDS").PlaceHolder("FILE").StringVar(&o.creds)
	app.Flag("nkey", "File of a user nkey seed").Envar("NATS_NKEY").PlaceHolder("FILE").StringVar(&o.nkey)
	app.Flag("tlscert", "TLS certificate").Envar("NATS_CERT").PlaceHolder("FILE").ExistingFileVar(&o.tlsCert)
	app.Flag("tlskey", "TLS private key").Envar("NATS_KEY").PlaceHolder("FILE").ExistingFileVar(&o.tlsKey)
	app.Flag("tlsca", "TLS certificate authorities").Envar("NATS_CA").PlaceHolder("FILE").ExistingFileVar(&o.tlsCA)
	app.Flag("tlsfirst", "Do the TLS handshake before the NATS one").BoolVar(&o.tlsFirst)
	app.Flag("timeout", "How long to wait for answers").Envar("NATS_TIMEOUT").Default("2s").IsSetByUser(&o.timeoutGiven).DurationVar(&o.timeout)
	app.Flag("jsdomain", "JetStream domain of artifacts").StringVar(&o.jsDomain)
	app.Flag("context", "Context of the nats CLI to use").Envar("NATS_CONTEXT").StringVar(&o.context)
	app.Flag("inbox-prefix", "Prefix of the subjects that replies come to").PlaceHolder("_INBOX").StringVar(&o.inboxPrefix)
	app.Flag("conn-name", "Name of the connection in NATS").Default("nex-" + version).StringVar(&o.name)
}

// resolve returns the server's URL and how to connect. Flags win over what a
// context says.
func (o *connOptions) resolve() (url string, options []nats.Option, err error) {
	var with []natscontext.Option
	for _, f := range []struct {
		value string
		opt   func(string) natscontext.Option
	}{
		{o.server, natscontext.WithServerURL}, {o.password, natscontext.WithPassword}, {o.creds, natscontext.WithCreds},
		{o.nkey, natscontext.WithNKey}, {o.inboxPrefix, natscontext.WithInboxPrefix}, {o.tlsCert, natscontext.WithCertificate}, {o.tlsKey, natscontext.WithKey}, {o.tlsCA, natscontext.WithCA},
	} {
		if f.value != "" {
			with = append(with, f.opt(f.value))
		}
	}
	switch {
	case o.user != "" && o.password == "": // as the nats CLI: a user alone is a token
		with = append(with, natscontext.WithToken(o.user))
	case o.user != "":
		with = append(with, natscontext.WithUser(o.user))
	}
	if o.tlsFirst {
		with = append(with, natscontext.WithTLSHandshakeFirst())
	}
	if o.context != "" && !natscontext.IsKnown(o.context) {
		known := natscontext.KnownContexts()
		slices.Sort(known)
		return "", nil, fmt.Errorf("unknown context provided: %q is not among %v", o.context, known)
	}
	nctx, err := natscontext.New(o.context, o.context != "", with...)
	if err != nil {
		return "", nil, fmt.Errorf("load NATS context: %w", err)
	}
	options, err = nctx.NATSOptions()
	if err != nil {
		return "", nil, fmt.Errorf("prepare NATS connection: %w", err)
	}
	if nctx.User() == "" && nctx.Creds() == "" && nctx.NKey() != "" { // these come first
		options = append(options, rereadNkey(nctx.NKey()))
	}
	url = nctx.ServerURL()
	if url == "" {
		url = defaultServer
	}
	return url, append(options, nats.Name(o.name), nats.Timeout(o.timeout)), nil
}

// connect returns a client for the chosen namespace; close ends its
// connection.
func (c *cli) connect() (client *nex.Client, nc *nats.Conn, err error) {
	url, options, err := c.conn.resolve()
	if err != nil {
		return nil, nil, err
	}
	nc, err = nats.Connect(url, options...)
	if err != nil {
		return nil, nil, unreachableError{fmt.Errorf("cannot connect to NATS at %s: %w (name another with -s, or start one with \"nex dev\")", node.RedactURLs(url), err)}
	}
	client, err = nex.NewClient(nc, c.namespace)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return client, nc, nil
}

// asking adapts a command that asks nodes one thing: it connects, and bounds
// the work by --timeout.
func (c *cli) asking(ctx context.Context, work func(context.Context, *nex.Client) error) fisk.Action {
	return action(ctx, func(ctx context.Context) error {
		client, nc, err := c.connect()
		if err != nil {
			return err
		}
		defer nc.Close()
		ctx, cancel := c.within(ctx, 0)
		defer cancel()
		return work(ctx, client)
	})
}

// within bounds ctx by --timeout, or by at least d unless --timeout was given.
func (c *cli) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if c.conn.timeoutGiven || d < c.conn.timeout {
		d = c.conn.timeout
	}
	return context.WithTimeout(ctx, d)
}

// answered classifies the error of a request to a node.
func answered(err error) error {
	var e *nex.Error
	switch {
	case err == nil:
		return nil
	case nex.CodeOf(err) == nex.NoSuchNode:
		return unreachableError{err}
	case errors.As(err, &e):
		return refusedError{err}
	}
	return err
}

func (c *cli) printJSON(v any) error {
	enc := json.NewEncoder(c.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// isTerminal reports whether people read w as it is written.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// notice prints a line for people if done is not called within a second.
func (c *cli) notice(text string) (done func()) {
	if !isTerminal(c.stderr) {
		return func() {}
	}
	t := time.AfterFunc(time.Second, func() { fmt.Fprintln(c.stderr, text) })
	return func() { t.Stop() }
}
