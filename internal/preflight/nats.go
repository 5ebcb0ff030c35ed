package preflight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/keyfile"
)

// natsTime bounds how long a NATS server may take for one answer.
const natsTime = 5 * time.Second

// dial connects as the node would, once for all checks.
func (p *probe) dial() (*nats.Conn, error) {
	if p.nc == nil && p.natsErr == nil {
		// What it says in its own time is asked for with LastError.
		options := append([]nats.Option{nats.Timeout(natsTime)}, p.Options...)
		p.nc, p.natsErr = nats.Connect(p.Server, append(options, nats.Name("nex preflight"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...)
	}
	return p.nc, p.natsErr
}

// hangUp ends the connection, if there is one.
func (p *probe) hangUp() {
	if p.nc != nil {
		p.nc.Close()
	}
}

func (p *probe) reachable(context.Context) Finding {
	nc, err := p.dial()
	if err != nil {
		return missing(fmt.Sprintf("%s: %v", hosts(p.Server), unnamed(err)), "start one (nats-server -js, or nex dev to try Nex), or say where it is and who connects, with -s, --creds, --nkey, --user or --context")
	}
	return found(shown(nc.ConnectedUrl()), "nats-server "+nc.ConnectedServerVersion())
}

// hosts are those in NATS URLs separated by commas, without users and passwords.
func hosts(servers string) string {
	var all []string
	for s := range strings.SplitSeq(servers, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		switch {
		case err != nil:
			all = append(all, "(not a URL)")
		case u.Host == "": // as in localhost, or localhost:4222
			_, after, _ := strings.Cut(s, "@")
			all = append(all, cmp.Or(after, strings.TrimSpace(s)))
		default:
			all = append(all, u.Host)
		}
	}
	return strings.Join(all, ", ")
}

const noConnection = "it is not known: there is no NATS server to ask"

func (p *probe) jetStream(ctx context.Context) Finding {
	nc, err := p.dial()
	if err != nil {
		return missing(noConnection, "see what is said of the NATS server")
	}
	var js jetstream.JetStream
	if p.JSDomain != "" {
		js, err = jetstream.NewWithDomain(nc, p.JSDomain)
	} else {
		js, err = jetstream.New(nc)
	}
	if err == nil {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, natsTime)
		defer cancel()
		_, err = js.AccountInfo(ctx)
	}
	switch {
	case err == nil:
		return found("JetStream", "")
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, nats.ErrNoResponders):
		return missing(err.Error(), "run nats-server with -js, have it enabled for the account, or name the domain that has it with --jsdomain")
	}
	return doubtful("it is not known: "+err.Error(), "let this user publish to $JS.API.INFO and have its inbox, to be told")
}

// permissions subscribes to what a node listens on, for a moment.
func (p *probe) permissions(ctx context.Context) Finding {
	nc, err := p.dial()
	if err != nil {
		return missing(noConnection, "see what is said of the NATS server")
	}
	id, err := p.nodeID()
	if err != nil {
		return missing(err.Error(), "restore the node's identity")
	}
	var denied []string
	for _, subject := range controlSubjects(id) {
		switch err := mayListen(ctx, nc, subject); {
		case errors.Is(err, nats.ErrPermissionViolation):
			denied = append(denied, subject)
		case err != nil:
			return missing(fmt.Sprintf("subscribe to %s: %v", subject, err), "see NATS server")
		}
	}
	if len(denied) > 0 {
		return missing("this user may not subscribe to "+strings.Join(denied, ", "), "give the node's user these permissions; docs/security.md has them all")
	}
	return found("$NEX.>", "")
}

// controlSubjects are the subjects that a node listens on.
func controlSubjects(id string) []string {
	return []string{
		nex.PingSubject, nex.NodePingSubject(id), nex.WorkloadPingSubject + ".>", nex.AuctionSubject,
		nex.InfoSubject("*", id), nex.LameDuckSubject(id), nex.DeploySubject("*", id), nex.StopSubject("*", id),
	}
}

// mayListen subscribes, and asks the server to say what it has against it.
func mayListen(ctx context.Context, nc *nats.Conn, subject string) error {
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, natsTime)
	defer cancel()
	// The server's word against it comes before its answer to this, and
	// LastError has it then.
	err = nc.FlushWithContext(ctx)
	if last := nc.LastError(); err == nil && errors.Is(last, nats.ErrPermissionViolation) && strings.Contains(last.Error(), `"`+subject+`"`) {
		err = last
	}
	return errors.Join(err, ignoreGone(sub.Unsubscribe()))
}

// ignoreGone drops the error of a subscription that the server ended.
func ignoreGone(err error) error {
	if errors.Is(err, nats.ErrBadSubscription) {
		return nil
	}
	return err
}

// nodeID is the id that the node has, or one that it might have.
func (p *probe) nodeID() (string, error) {
	path := filepath.Join(p.StateDir, "identity", "node.nk")
	var key nkeys.KeyPair
	_, err := os.Stat(path)
	if err == nil {
		key, _, err = keyfile.Load(path, nkeys.CreateServer)
	} else {
		key, err = nkeys.CreateServer()
	}
	if err != nil {
		return "", err
	}
	return key.PublicKey()
}
