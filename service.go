package nex

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Resources bound what a service may use, all its processes together unless it
// says otherwise. 0 is no bound of the workload's own. Unknown to Nex 0.2.7.
type Resources struct {
	// CPUs is how many processors it may keep busy, as in 0.5.
	CPUs float64 `json:"cpus,omitempty"`
	// MemoryMiB is how much memory it may have, in MiB.
	MemoryMiB int `json:"memory_mib,omitempty"`
	// PIDs is how many processes and threads it may have at once.
	PIDs int `json:"pids,omitempty"`
	// Files is how many files one of its processes may have open.
	Files int `json:"files,omitempty"`
	// DiskMiB is how much its working directory may hold, in MiB.
	DiskMiB int `json:"disk_mib,omitempty"`
}

// maxCPUs is more than any host has.
const maxCPUs = 4096

// cpus completes the processors that a workload asks for.
func (r *Resources) cpus(service bool, byDefault, ceiling float64) error {
	const name = "resources.cpus"
	if ceiling == 0 {
		ceiling = maxCPUs
	} else if byDefault == 0 {
		byDefault = ceiling
	}
	switch {
	case math.IsNaN(r.CPUs) || r.CPUs < 0 || r.CPUs > 0 && r.CPUs < 0.01:
		return Errorf(Invalid, "%s cannot be %g: the least is 0.01", name, r.CPUs)
	case r.CPUs > ceiling:
		return Errorf(Denied, "%s of %g is over this node's ceiling of %g", name, r.CPUs, ceiling)
	case r.CPUs > 0 && !service:
		return wrongType(name, false)
	case r.CPUs == 0 && service:
		r.CPUs = min(byDefault, ceiling)
	}
	return nil
}

// RestartPolicy says when a service that ended is started again.
type RestartPolicy string

// The restart policies. On the wire of Nex 0.2.7 an essential workload is one
// with the policy on-failure.
const (
	RestartNever     RestartPolicy = "never"
	RestartOnFailure RestartPolicy = "on-failure" // when its exit status is not 0, and when it never got ready
	RestartAlways    RestartPolicy = "always"
)

// RestartPolicies are all policies, the one that restarts least first.
func RestartPolicies() []RestartPolicy {
	return []RestartPolicy{RestartNever, RestartOnFailure, RestartAlways}
}

// UnmarshalText refuses words that name no policy.
func (p *RestartPolicy) UnmarshalText(text []byte) error {
	policy := RestartPolicy(text)
	if policy != "" && !slices.Contains(RestartPolicies(), policy) {
		return fmt.Errorf("unknown restart policy %.32q: choose one of %v", policy, RestartPolicies())
	}
	*p = policy
	return nil
}

// Restart says whether and how often a service is started again. In JSON it may
// be the policy alone, as a string. Unknown to Nex 0.2.7.
type Restart struct {
	// Policy is when. "" leaves it to the node.
	Policy RestartPolicy `json:"policy,omitempty"`
	// MaxAttempts is how many restarts there may be without the service having
	// been healthy for ResetMS in between. 0 is any number.
	MaxAttempts int `json:"max_attempts,omitempty"`
	// ResetMS is how long a service must have been healthy for its earlier
	// failures to be forgotten, in milliseconds.
	ResetMS int `json:"reset_ms,omitempty"`
}

// UnmarshalJSON reads the object, or the policy alone.
func (r *Restart) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*r = Restart{}
		return json.Unmarshal(data, &r.Policy)
	}
	type object Restart
	return json.Unmarshal(data, (*object)(r))
}

// Reset is how long a service must have been healthy for its failures to be
// forgotten.
func (r Restart) Reset() time.Duration { return time.Duration(r.ResetMS) * time.Millisecond }

// Ready says how to tell that a service is ready to work, and whether it still
// is. Exactly one of AfterMS, Subject, Micro and TCPPort is given; HTTPPath goes
// with TCPPort. Without any of them a service is ready when it runs. Unknown to
// Nex 0.2.7.
type Ready struct {
	// AfterMS is how long it has to stay up, in milliseconds.
	AfterMS int `json:"after_ms,omitempty"`
	// Subject is where it answers a request without a payload.
	Subject string `json:"nats_subject,omitempty"`
	// Micro is the name of a NATS micro service that answers a ping.
	Micro string `json:"micro_service,omitempty"`
	// TCPPort is where it accepts connections on its own machine.
	TCPPort int `json:"tcp_port,omitempty"`
	// HTTPPath is what it answers there by HTTP, with a status below 400.
	HTTPPath string `json:"http_path,omitempty"`

	// EveryMS is the time between two looks at a service that is ready, in
	// milliseconds; 5000 if it is 0. Before that it is looked at more often.
	EveryMS int `json:"every_ms,omitempty"`
	// TimeoutMS is how long one answer may take, in milliseconds; 1000 if it is 0.
	TimeoutMS int `json:"timeout_ms,omitempty"`
	// WithinMS is how long the service may take to get ready, in milliseconds.
	// One that takes longer has failed. 0 is for ever.
	WithinMS int `json:"within_ms,omitempty"`
}

// Every is the time between two looks at a service that is ready.
func (r Ready) Every() time.Duration { return millisecondsOr(r.EveryMS, 5*time.Second) }

// Timeout is how long one answer may take.
func (r Ready) Timeout() time.Duration { return millisecondsOr(r.TimeoutMS, time.Second) }

// Within is how long the service may take to get ready, 0 for ever.
func (r Ready) Within() time.Duration { return time.Duration(r.WithinMS) * time.Millisecond }

// After is how long the service has to stay up, if that is what tells.
func (r Ready) After() time.Duration { return time.Duration(r.AfterMS) * time.Millisecond }

func millisecondsOr(n int, otherwise time.Duration) time.Duration {
	if n == 0 {
		return otherwise
	}
	return time.Duration(n) * time.Millisecond
}

// microName is what a NATS micro service may be called.
var microName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,128}$`)

const (
	maxReadyMS  = 24 * 60 * 60 * 1000 // a day
	leastEvery  = 100
	maxHTTPPath = 1024
)

// Validate reports what is wrong with r. The zero value is fine.
func (r Ready) Validate() error {
	if r == (Ready{}) {
		return nil
	}
	for name, ms := range map[string]int{"after_ms": r.AfterMS, "every_ms": r.EveryMS, "timeout_ms": r.TimeoutMS, "within_ms": r.WithinMS} {
		if ms < 0 || ms > maxReadyMS {
			return Errorf(Invalid, "ready.%s is %d: want 1 to %d", name, ms, maxReadyMS)
		}
	}
	ways := 0
	for _, given := range []bool{r.AfterMS > 0, r.Subject != "", r.Micro != "", r.TCPPort != 0} {
		if given {
			ways++
		}
	}
	switch {
	case r.HTTPPath != "" && r.TCPPort == 0:
		return Errorf(Invalid, "ready.http_path needs ready.tcp_port")
	case ways != 1:
		return Errorf(Invalid, "ready has %d of after_ms, nats_subject, micro_service and tcp_port: want exactly one", ways)
	case r.EveryMS > 0 && r.EveryMS < leastEvery:
		return Errorf(Invalid, "ready.every_ms is %d: want at least %d", r.EveryMS, leastEvery)
	case r.TCPPort < 0 || r.TCPPort > math.MaxUint16:
		return Errorf(Invalid, "ready.tcp_port is %d: want 1 to %d", r.TCPPort, math.MaxUint16)
	case r.Micro != "" && !microName.MatchString(r.Micro):
		return Errorf(Invalid, "ready.micro_service %.64q: want letters, digits, _ and -", r.Micro)
	case r.WithinMS > 0 && r.AfterMS >= r.WithinMS:
		return Errorf(Invalid, "ready.within_ms of %d is over before ready.after_ms of %d", r.WithinMS, r.AfterMS)
	}
	if r.HTTPPath != "" && !validHTTPPath(r.HTTPPath) {
		return Errorf(Invalid, "ready.http_path %.64q: want a path that begins with /, of at most %d bytes", r.HTTPPath, maxHTTPPath)
	}
	return r.validSubject()
}

func (r Ready) validSubject() error {
	if r.Subject == "" {
		return nil
	}
	if err := ValidTrigger(r.Subject); err != nil {
		return Errorf(Invalid, "ready.nats_subject: %v", err)
	}
	for token := range strings.SplitSeq(r.Subject, ".") {
		if token == "*" || token == ">" {
			return Errorf(Invalid, "ready.nats_subject %.64q has wildcards", r.Subject)
		}
	}
	return nil
}

// validHTTPPath takes printable ASCII, since it goes into the first line of a
// request.
func validHTTPPath(p string) bool {
	return p[0] == '/' && len(p) <= maxHTTPPath && !strings.ContainsFunc(p, func(c rune) bool { return c <= ' ' || c > '~' })
}

// WithEssential maps the flag of Nex 0.2.7, which asks for a restart when a
// service fails, unless the settings say more about it.
func (s Settings) WithEssential(essential bool) (Settings, error) {
	switch {
	case essential && s.Restart.Policy == RestartNever:
		return s, Errorf(Invalid, "essential and restart %q contradict each other: keep one", RestartNever)
	case essential && s.Restart.Policy == "":
		s.Restart.Policy = RestartOnFailure
	}
	return s, nil
}

// forService completes what is for services alone.
func (s *Settings) forService(service bool, defaults, ceilings Settings) error {
	if err := s.Resources.cpus(service, defaults.Resources.CPUs, ceilings.Resources.CPUs); err != nil {
		return err
	}
	if err := s.Ready.Validate(); err != nil {
		return err
	}
	switch {
	case s.Restart.Policy != "" && !service:
		return wrongType("restart", false)
	case s.Ready != (Ready{}) && !service:
		return wrongType("ready", false)
	case service:
		if s.Restart.Policy == "" {
			s.Restart.Policy = defaults.Restart.Policy
		}
		if s.Ready == (Ready{}) {
			s.Ready = defaults.Ready
		}
	}
	return nil
}
