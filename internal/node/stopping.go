package node

import (
	"errors"
	"fmt"
	"slices"

	"nex"
	"nex/internal/workload"
)

// admitStop decides whether a request may end a workload.
func (n *node) admitStop(r nex.StopRequest, s workload.Summary) error {
	refuse := func(why any) error { return nex.Errorf(nex.Unauthorized, "Invalid stop request: %v", why) }
	claims, err := nex.DecodeClaims(r.WorkloadJWT)
	if err != nil {
		return refuse(err)
	}
	now, start := n.now(), s.Spec.Claims
	// Claims with a digest come from some deploy request; those that say what
	// they are for do not. Those of Nex 0.2.7 can be told apart by time alone,
	// and cannot be older than what they stop.
	if claims.Hash != "" || !claims.Bound() && (claims.ID == start.ID || !claims.IssuedAt.After(start.IssuedAt)) {
		return refuse("stop claims appear to be cloned or captured from the original start claims. Rejecting for security reasons")
	}
	switch {
	case !claims.ValidAt(now):
		return refuse(notValid(claims, now))
	case claims.Bound() && claims.Workload != s.ID:
		return refuse(fmt.Sprintf("stop claims are for workload %.64q", claims.Workload))
	case claims.Name != start.Name:
		return refuse("stop claims subject does not match original start claims subject")
	case claims.Issuer != start.Issuer:
		return refuse("the only entity allowed to terminate a workload is the issuer that originally started it")
	case !claims.Bound() && n.cfg.Settings.RequireBoundClaims:
		return refuse("this node takes only claims that are bound to one request (require_bound_claims)")
	}
	if err := claims.Allow(nex.ForStop, s.Spec.Namespace, n.identity.id); err != nil {
		return refuse(err)
	}
	// Equal claims of Nex 0.2.7 may be meant for several workloads of a name.
	if err := n.replays.once(keyOf(r.WorkloadJWT, s.ID), claims.Issuer, n.rememberUntil(claims, now)); err != nil {
		if nex.CodeOf(err) == nex.Unauthorized {
			return refuse(err)
		}
		n.log.Warn("A stop is not remembered", "id", s.ID, "error", err) // a full disk must not keep what fills it
	}
	return nil
}

// admitLameDuck decides whether a request may put the node into lame duck
// mode: anybody's, unless there are administrators.
func (n *node) admitLameDuck(r nex.LameDuckRequest) error {
	admins := n.cfg.Settings.AdminIssuers
	if len(admins) == 0 {
		return nil
	}
	refuse := func(why any) error {
		return nex.Errorf(nex.Unauthorized, "Failed to enter lame duck mode: %v", why)
	}
	if r.AdminJWT == "" {
		return refuse("this node takes the command from its administrators alone (admin_issuers): sign it with --issuer")
	}
	claims, err := nex.DecodeClaims(r.AdminJWT)
	if err != nil {
		return refuse(err)
	}
	switch now := n.now(); {
	case !slices.Contains(admins, claims.Issuer):
		return refuse(claims.Issuer + " is no administrator of this node")
	case !claims.Bound():
		return refuse("the claims do not say what they are for")
	case !claims.ValidAt(now):
		return refuse(notValid(claims, now))
	}
	if err := claims.Allow(nex.ForLameDuck, "", n.identity.id); err != nil {
		return refuse(err)
	}
	if err := boundTo(r, claims); err != nil {
		return refuse(err)
	}
	// A captured command must not work on the node's next life.
	if err := n.replays.once(keyOf(r.AdminJWT, ""), claims.Issuer, n.rememberUntil(claims, n.now())); err != nil {
		return refuse(err)
	}
	return nil
}

// boundTo reports whether claims are for what a command says besides lame duck
// mode itself. Claims that say nothing of it are for lame duck mode alone.
func boundTo(r nex.LameDuckRequest, claims nex.Claims) error {
	if claims.Request == "" && !r.Drain {
		return nil
	}
	fingerprint, err := r.Fingerprint()
	if err != nil {
		return err
	}
	if claims.Request != fingerprint {
		return errors.New("the command was changed after its claims were signed")
	}
	return nil
}
