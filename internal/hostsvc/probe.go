package hostsvc

import (
	"context"
	"strings"

	"github.com/nats-io/nats.go"

	"nex"
)

// pingSubject is what the micro services of NATS answer, followed by the name of
// one (ADR-32 of the NATS architecture).
const pingSubject = "$SRV.PING."

// Answers sends a request without a payload where the session's messages go: to
// the subject, or to the micro service, that r names. The error says why nobody
// answered; an answer that is an error is none. What the policy denies to the
// workload's code it denies here too, but for the pings of micro services.
func (s *Session) Answers(ctx context.Context, r nex.Ready) error {
	subject := r.Subject
	if r.Micro != "" {
		subject = pingSubject + r.Micro
	} else if err := s.server.subjects.check(subject); err != nil {
		return err
	}
	ctx, leave, err := s.gate.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, r.Timeout())
	defer cancel()
	nc, err := connected(ctx, s.messages)
	if err != nil {
		return failure(ctx, err)
	}
	answer, err := nc.RequestMsgWithContext(ctx, nats.NewMsg(subject))
	if err != nil {
		return failure(ctx, nobody(err, subject))
	}
	if text := answer.Header.Get("Nats-Service-Error"); text != "" {
		return nex.Errorf(nex.Unavailable, "%s answers: %.200s", subject, strings.ToValidUTF8(text, "�"))
	}
	return nil
}
