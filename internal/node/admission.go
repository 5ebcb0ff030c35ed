package node

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"time"

	"nex"
	"nex/internal/artifact"
	"nex/internal/config"
	"nex/internal/workload"
)

// maxFunctionTimeout is the longest timeout of a function call that a request
// may ask for.
const maxFunctionTimeout = 10 * time.Minute

// candidate is a deploy request on its way to become a Spec.
type candidate struct {
	namespace string
	request   nex.DeployRequest
	now       time.Time
	spec      workload.Spec
}

// check is one condition of admission. It may fill in the spec.
type check struct {
	name string
	test func(*node, *candidate) error
}

// fileName is what is shown of a source name; others are ignored.
var fileName = regexp.MustCompile(`^[\w@+-][\w@+. -]{0,99}$`)

// checks are all conditions a deploy request must meet, in the order in which
// Nex 0.2.7 refuses. Limits on count and size are reserved by the workload
// manager, before and while it fetches.
var checks = []check{
	{"lame duck", (*node).checkLameDuck},
	{"namespace", (*node).checkNamespace},
	{"type", (*node).checkType},
	{"triggers", (*node).checkTriggers},
	{"environment", (*node).checkEnvironment},
	{"claims", (*node).checkClaims},
	{"issuer", (*node).checkIssuer},
	{"location", (*node).checkLocation},
	{"settings", (*node).checkSettings},
}

// admit decides whether a workload may run here and says what will run.
func (n *node) admit(namespace string, r nex.DeployRequest) (workload.Spec, error) {
	c := &candidate{namespace: namespace, request: r, now: time.Now()}
	c.spec = workload.Spec{
		Namespace: namespace, Description: r.Description, Argv: r.Argv, Essential: r.Essential,
		Static: n.cfg.Settings.Sandbox != config.SandboxNone,
	}
	for _, check := range checks {
		if err := check.test(n, c); err != nil {
			n.log.Info("Deploy refused", "namespace", namespace, "check", check.name, "error", err)
			return workload.Spec{}, err
		}
	}
	return c.spec, nil
}

func (n *node) checkLameDuck(*candidate) error {
	if n.lameDuck.Load() {
		return nex.Errorf(nex.LameDuck, "Node is in lame duck mode. Workload deploy request denied")
	}
	return nil
}

func (n *node) checkNamespace(c *candidate) error {
	if c.namespace == nex.SystemNamespace || !nex.ValidToken(c.namespace) {
		return nex.Errorf(nex.Invalid, "namespace %q cannot hold workloads", c.namespace)
	}
	return nil
}

func (n *node) checkType(c *candidate) error {
	t := c.request.Type
	if t == "elf" { // the name up to Nex 0.2.3
		t = nex.Native
	}
	if !slices.Contains(n.cfg.Settings.WorkloadTypes, t) {
		return nex.Errorf(nex.Unsupported, "Unsupported workload type on this node: %s", c.request.Type)
	}
	c.spec.Type = t
	return nil
}

func (n *node) checkTriggers(c *candidate) error {
	triggers := c.request.TriggerSubjects
	if len(triggers) > 0 && !c.spec.Type.IsFunction() {
		return nex.Errorf(nex.Invalid, "Unsupported workload type for trigger subject registration: %s", c.spec.Type)
	}
	if len(triggers) == 0 && c.spec.Type.IsFunction() {
		return nex.Errorf(nex.Invalid, "Failed to deploy workload: workload rejected by agent: at least one trigger subject is required for this workload type")
	}
	for _, s := range triggers {
		if err := nex.ValidTrigger(s); err != nil {
			return err
		}
		for _, denied := range n.cfg.Settings.DenyTriggerSubjects {
			if nex.SubjectsOverlap(s, denied) {
				return nex.Errorf(nex.Denied, "The trigger subject %s overlaps with subject(s) in this node's deny list", s)
			}
		}
	}
	triggers = slices.Clone(triggers)
	slices.Sort(triggers)
	c.spec.Triggers = slices.Compact(triggers)
	return nil
}

func (n *node) checkEnvironment(c *candidate) error {
	env, err := nex.OpenEnvironment(c.request.Environment, n.identity.open, c.request.SenderPublicKey)
	if err != nil {
		return nex.Errorf(nex.Invalid, "Failed to decrypt environment for deploy request: %v", err)
	}
	c.spec.Environment = env
	return nil
}

func (n *node) checkClaims(c *candidate) error {
	claims, err := nex.DecodeClaims(c.request.WorkloadJWT)
	switch {
	case err != nil:
		return nex.Errorf(nex.Unauthorized, "Invalid deploy request: %v", err)
	case !nex.ValidName(claims.Name):
		return nex.Errorf(nex.Invalid, "Invalid deploy request: workload name claim ('%s') does not match requirements (%s)", claims.Name, nex.NamePattern)
	case !claims.ValidAt(c.now):
		return nex.Errorf(nex.Unauthorized, "Invalid deploy request: standard claims within JWT are not valid")
	case claims.Stops != "":
		return nex.Errorf(nex.Unauthorized, "Invalid deploy request: the claims are those of a stop request")
	}
	c.spec.Claims, c.spec.Name = claims, claims.Name
	return nil
}

func (n *node) checkIssuer(c *candidate) error {
	valid := n.cfg.Settings.ValidIssuers
	if len(valid) > 0 && !slices.Contains(valid, c.spec.Claims.Issuer) {
		return nex.Errorf(nex.Unauthorized, "invalid workload issuer: %s", c.spec.Claims.Issuer)
	}
	return nil
}

func (n *node) checkLocation(c *candidate) error {
	l := c.request.Location
	if l.Bucket() == "" || l.Key() == "" {
		return nex.Errorf(nex.Invalid, "Invalid deploy request: location must be nats://BUCKET/key")
	}
	c.spec.Artifact = artifact.Ref{Bucket: l.Bucket(), Key: l.Key(), Domain: c.request.JSDomain}
	c.spec.File = l.Key()
	if name := path.Base(c.request.SourceName); fileName.MatchString(name) {
		c.spec.File = name
	}
	return nil
}

func (n *node) checkSettings(c *candidate) error {
	if c.request.Essential && c.spec.Type.IsFunction() {
		return nex.Errorf(nex.Invalid, "Failed to deploy workload: workload rejected by agent: essential flag is not supported for workload type")
	}
	if c.request.TriggerConnection != nil {
		return nex.Errorf(nex.Unsupported, "this node does not connect elsewhere for triggers (trigger_connection)")
	}
	c.spec.Timeout = n.cfg.Settings.FunctionTimeout
	if ms := c.request.FunctionTimeoutMS; ms != 0 {
		c.spec.Timeout = time.Duration(ms) * time.Millisecond
	}
	if c.spec.Timeout <= 0 || c.spec.Timeout > maxFunctionTimeout {
		return nex.Errorf(nex.Invalid, "function_timeout_ms must be 1 to %d", maxFunctionTimeout.Milliseconds())
	}
	return nil
}

// checkStop decides whether claims may end a workload.
func checkStop(token string, s workload.Summary, now time.Time) error {
	claims, err := nex.DecodeClaims(token)
	if err != nil {
		return nex.Errorf(nex.Unauthorized, "Invalid stop request: %v", err)
	}
	refuse := func(why string) error { return nex.Errorf(nex.Unauthorized, "Invalid stop request: %s", why) }
	start := s.Spec.Claims
	// Claims with a digest come from some deploy request; those that name what
	// they stop do not. Nex 0.2.7 told them apart by time alone.
	if claims.Hash != "" || claims.Stops == "" && (claims.ID == start.ID || claims.IssuedAt.Equal(start.IssuedAt)) {
		return refuse("stop claims appear to be cloned or captured from the original start claims. Rejecting for security reasons")
	}
	switch {
	case !claims.ValidAt(now):
		return refuse("standard claims within JWT are not valid")
	case claims.Stops != "" && claims.Stops != s.ID:
		return refuse(fmt.Sprintf("stop claims are for workload %s", claims.Stops))
	case claims.Name != start.Name:
		return refuse("stop claims subject does not match original start claims subject")
	case claims.Issuer != start.Issuer:
		return refuse("the only entity allowed to terminate a workload is the issuer that originally started it")
	}
	return nil
}
