package node

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"nex"
	"nex/internal/artifact"
	"nex/internal/workload"
)

// candidate is a deploy request on its way to become a Spec.
type candidate struct {
	namespace string
	request   nex.DeployRequest
	own       bool // from the node's configuration
	restored  bool // it was admitted before, by an earlier process of this node
	now       time.Time
	claims    nex.Claims
	claimsErr error // why there are no claims
	spec      workload.Spec
}

// check is one condition of admission. It may fill in the spec.
type check struct {
	name string
	test func(*node, *candidate) error
}

const (
	// maxTriggers is how many subjects may trigger one function.
	maxTriggers = 256
	// maxLife is how far ahead bound claims may expire: they are remembered
	// until then.
	maxLife = time.Hour
	// maxLogged is how many bytes of a refusal go into the log.
	maxLogged = 512
)

// fileName is what is shown of a source name; others are ignored.
var fileName = regexp.MustCompile(`^[\w@+-][\w@+. -]{0,99}$`)

// checks are all conditions a deploy request must meet, in this order. Before
// them the node has set a place aside under its limit of workloads; after them
// the workload manager holds the artifact's size against the limits, before it
// is downloaded.
var checks = []check{
	{"lame duck", (*node).checkLameDuck},
	{"namespace", (*node).checkNamespace},
	{"type", (*node).checkType},
	{"issuer", (*node).checkIssuer},
	{"claims", (*node).checkClaims},
	{"name", (*node).checkName},
	{"triggers", (*node).checkTriggers},
	{"environment", (*node).checkEnvironment},
	{"location", (*node).checkLocation},
	{"digest", (*node).checkDigest},
	{"settings", (*node).checkSettings},
	{"resources", (*node).checkResources},
	{"replay", (*node).checkReplay},
}

// candidate makes one of a request.
func (n *node) candidate(namespace string, r nex.DeployRequest) *candidate {
	c := &candidate{namespace: namespace, request: r, now: n.now()}
	c.claims, c.claimsErr = nex.DecodeClaims(r.WorkloadJWT)
	c.spec = workload.Spec{
		Namespace: namespace, Name: c.claims.Name, Claims: c.claims,
		Description: r.Description, Argv: r.Argv,
		Static: n.cfg.Settings.Sandbox != nex.SandboxNone,
	}
	return c
}

// admit decides whether a workload may run here and says what will run. The
// claims of one that was admitted before may have expired, and it is not a
// replay; what the configuration says counts, as it may have changed.
func (n *node) admit(c *candidate) (workload.Spec, error) {
	for _, check := range checks {
		if err := check.test(n, c); err != nil {
			n.log.Info("Deploy refused", "namespace", c.namespace, "check", check.name, "error", brief(err))
			return workload.Spec{}, err
		}
	}
	return c.spec, nil
}

// notValid says that claims are good for another time. Those of Nex 0.2.7 get
// its text to the letter.
func notValid(c nex.Claims, now time.Time) string {
	text := "standard claims within JWT are not valid"
	if c.Bound() {
		text += fmt.Sprintf(": they expire at %s, here it is %s", c.Expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return text
}

// brief is an error's text as the log shows it: some quote the request.
func brief(err error) string {
	text := err.Error()
	if len(text) > maxLogged {
		text = strings.ToValidUTF8(text[:maxLogged], "") + "…"
	}
	return text
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
	t, ok := n.supports(c.request.Type)
	if !ok {
		return nex.Errorf(nex.Unsupported, "Unsupported workload type on this node: %.64s", c.request.Type)
	}
	c.spec.Type = t
	return nil
}

// supports returns the present name of a type this node takes.
func (n *node) supports(t nex.WorkloadType) (nex.WorkloadType, bool) {
	if t == "elf" { // the name up to Nex 0.2.3
		t = nex.Native
	}
	return t, slices.Contains(n.cfg.Settings.WorkloadTypes, t)
}

// checkIssuer goes before the claims are looked at any closer; without claims
// there is no issuer, which [node.checkClaims] says. The node's own key is not
// asked for a place in the list: it signs what the operator configured.
func (n *node) checkIssuer(c *candidate) error {
	valid := n.cfg.Settings.ValidIssuers
	if !c.own && c.claimsErr == nil && len(valid) > 0 && !slices.Contains(valid, c.claims.Issuer) {
		return nex.Errorf(nex.Unauthorized, "invalid workload issuer: %s", c.claims.Issuer)
	}
	return nil
}

func (n *node) checkClaims(c *candidate) error {
	refuse := func(why any) error { return nex.Errorf(nex.Unauthorized, "Invalid deploy request: %v", why) }
	if c.claimsErr != nil {
		return refuse(c.claimsErr)
	}
	if !c.restored && !c.claims.ValidAt(c.now) {
		return refuse(notValid(c.claims, c.now))
	}
	if err := c.claims.Allow(nex.ForDeploy, c.namespace, n.identity.id); err != nil {
		return refuse(err)
	}
	if !c.restored && c.claims.Bound() && c.claims.Expires.After(c.now.Add(maxLife)) {
		return refuse(fmt.Sprintf("the claims expire more than %s ahead", maxLife))
	}
	if !c.claims.Bound() {
		if n.cfg.Settings.RequireBoundClaims {
			return refuse("this node takes only claims that are bound to one request (require_bound_claims)")
		}
		return nil
	}
	fingerprint, err := c.request.Fingerprint()
	if err != nil {
		return refuse(err)
	}
	if fingerprint != c.claims.Request {
		return refuse("the request was changed after its claims were signed")
	}
	return nil
}

func (n *node) checkName(c *candidate) error {
	if !nex.ValidName(c.claims.Name) {
		return nex.Errorf(nex.Invalid, "Invalid deploy request: workload name claim ('%.300s') does not match requirements (%s)", c.claims.Name, nex.NamePattern)
	}
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
	if len(triggers) > maxTriggers {
		return nex.Errorf(nex.Invalid, "a function has at most %d trigger subjects, not %d", maxTriggers, len(triggers))
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

func (n *node) checkLocation(c *candidate) error {
	l := c.request.Location
	if l.Bucket() == "" || l.Key() == "" {
		return nex.Errorf(nex.Invalid, "Invalid deploy request: location must be nats://BUCKET/key")
	}
	if d := c.request.JSDomain; d != "" && !nex.ValidToken(d) {
		return nex.Errorf(nex.Invalid, "Invalid deploy request: jsdomain is no JetStream domain")
	}
	c.spec.Artifact = artifact.Ref{Bucket: l.Bucket(), Key: l.Key(), Domain: c.request.JSDomain}
	c.spec.File = l.Key()
	if name := path.Base(c.request.SourceName); fileName.MatchString(name) {
		c.spec.File = name
	}
	return nil
}

// checkDigest notes which artifact the claims allow.
func (n *node) checkDigest(c *candidate) error {
	c.spec.Artifact.SHA256 = c.claims.Digest()
	if c.spec.Artifact.SHA256 == "" && n.cfg.Settings.RequireDigest {
		return nex.Errorf(nex.Unauthorized, "Invalid deploy request: the claims do not hold the SHA-256 of the artifact (require_digest)")
	}
	return nil
}

func (n *node) checkSettings(c *candidate) error {
	if c.request.Essential && c.spec.Type.IsFunction() {
		return nex.Errorf(nex.Invalid, "Failed to deploy workload: workload rejected by agent: essential flag is not supported for workload type")
	}
	c.spec.TriggerAccess, c.spec.HostAccess = c.request.TriggerConnection, c.request.HostServices
	if err := n.checkAccess("trigger_connection", c.spec.TriggerAccess); err != nil {
		return err
	}
	if err := n.checkAccess("host_services", c.spec.HostAccess); err != nil {
		return err
	}
	if have := n.cfg.Settings.Sandbox; !have.AtLeast(c.request.Sandbox) {
		return nex.Errorf(nex.Unsupported, "the workload wants a sandbox of at least %q, this node has %q", c.request.Sandbox, have)
	}
	asked, err := c.request.Settings.WithEssential(c.request.Essential)
	if err != nil {
		return nex.Errorf(nex.Invalid, "Invalid deploy request: %v", err)
	}
	if err := n.checkProbe(asked.Ready.Subject); err != nil {
		return err
	}
	c.spec.Settings, err = asked.For(c.spec.Type, n.cfg.Settings.Defaults, n.cfg.Settings.Ceilings)
	return err
}

// checkProbe refuses to ask where no function of this node may answer.
func (n *node) checkProbe(subject string) error {
	for _, denied := range n.cfg.Settings.DenyTriggerSubjects {
		if subject != "" && nex.SubjectsOverlap(subject, denied) {
			return nex.Errorf(nex.Denied, "ready.nats_subject %.64q overlaps with subject(s) in this node's deny list", subject)
		}
	}
	return nil
}

// checkAccess looks at the NATS that a request names, if it does.
func (n *node) checkAccess(what string, a *nex.NATSAccess) error {
	if a == nil {
		return nil
	}
	if err := a.Validate(); err != nil {
		return nex.Errorf(nex.Invalid, "Invalid deploy request: %s: %v", what, err)
	}
	for server := range strings.SplitSeq(a.URL, ",") {
		if u, err := url.Parse(strings.TrimSpace(server)); err != nil || !n.allowsServer(u) {
			return nex.Errorf(nex.Denied, "Invalid deploy request: %s: this node does not connect to that server for workloads (workload_nats_servers)", what)
		}
	}
	return nil
}

// allowsServer reports whether the node connects there for workloads.
func (n *node) allowsServer(u *url.URL) bool {
	allowed := n.cfg.Settings.WorkloadServers
	host := net.JoinHostPort(strings.ToLower(u.Hostname()), cmp.Or(u.Port(), "4222"))
	return allowed == nil || slices.ContainsFunc(allowed, func(pattern string) bool {
		ok, err := path.Match(strings.ToLower(pattern), host)
		return ok && err == nil
	})
}

// checkReplay takes the same request once.
func (n *node) checkReplay(c *candidate) error {
	if c.restored {
		return nil
	}
	key := keyOf(c.request.WorkloadJWT, c.request.Environment)
	if err := n.replays.once(key, c.claims.Issuer, n.rememberUntil(c.claims, c.now)); err != nil {
		return nex.Errorf(nex.CodeOf(err), "Invalid deploy request: %v", err)
	}
	return nil
}

// rememberUntil is when a request can no longer come again with these claims,
// or need no longer be told from one that is meant.
func (n *node) rememberUntil(c nex.Claims, now time.Time) time.Time {
	if c.Expires.IsZero() {
		return now.Add(n.cfg.Settings.ReplayWindow)
	}
	return c.Expires
}
