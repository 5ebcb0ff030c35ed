package hostsvc

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Config says what services there are. Zero values mean the defaults.
type Config struct {
	KV          Buckets
	ObjectStore Buckets
	Messaging   Messaging
	HTTP        HTTP

	MaxConcurrency int     // calls of one workload under way at a time; 256 by default
	RatePerSecond  float64 // calls of one workload; without a limit by default
}

// Buckets says how the buckets of the key-value or the object store are made.
// One that is there already is used as it is.
type Buckets struct {
	Disabled    bool
	BucketName  string        // template, hs_${namespace}_${workload_name}_kv (or _obj) by default
	MaxBytes    int64         // 64 MiB by default, -1 for no limit
	NoProvision bool          // buckets are made by somebody else
	Storage     string        // file, by default, or memory
	Replicas    int           // 1 by default
	TTL         time.Duration // how long what is stored is kept, for ever by default
	History     int           // values kept of a key, 1 by default; not for object stores
}

// Messaging says where workloads may send messages.
type Messaging struct {
	Disabled           bool
	RequestTimeout     time.Duration // of requests that do not say; 5 s by default
	RequestManyTimeout time.Duration // of requests that do not say; 1 s by default
	Allow              []string      // subjects, with wildcards; all but the denied if there are none
	Deny               []string      // subjects, with wildcards
}

// HTTP says what addresses workloads may reach. Both lists have IP addresses,
// ranges of them like 10.0.0.0/8, and names of hosts like example.org,
// *.example.org (which are those below it) and * (which are all).
type HTTP struct {
	Disabled bool
	Allow    []string      // besides the public addresses
	Deny     []string      // whatever else would allow it
	Timeout  time.Duration // of calls that do not say; 10 s by default
	MaxBody  int64         // of a response, in bytes; 16 MiB by default
}

func (c Config) withDefaults() Config {
	c.KV = c.KV.withDefaults("kv")
	c.ObjectStore = c.ObjectStore.withDefaults("obj")
	setDefault(&c.Messaging.RequestTimeout, 5*time.Second)
	setDefault(&c.Messaging.RequestManyTimeout, time.Second)
	setDefault(&c.HTTP.Timeout, 10*time.Second)
	setDefault(&c.HTTP.MaxBody, 16<<20)
	setDefault(&c.MaxConcurrency, 256)
	return c
}

func (b Buckets) withDefaults(kind string) Buckets {
	setDefault(&b.BucketName, "hs_${namespace}_${workload_name}_"+kind)
	setDefault(&b.MaxBytes, 64<<20)
	setDefault(&b.Storage, "file")
	setDefault(&b.Replicas, 1)
	setDefault(&b.History, 1)
	return b
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Validate reports what is wrong with a configuration, by the names that the
// configuration file has for it.
func (c Config) Validate() error { return c.withDefaults().check() }

// check reports what is wrong with a complete configuration, by the names that
// the configuration file has for it.
func (c Config) check() error {
	errs := []error{
		within("host service kv", c.KV.check()),
		within("host service objectstore", c.ObjectStore.check()),
		within("host service messaging", c.Messaging.check()),
		within("host service http", c.HTTP.check()),
	}
	if c.MaxConcurrency < 0 || !(c.RatePerSecond >= 0) {
		errs = append(errs, errors.New("host services: the most calls of a workload must not be negative"))
	}
	return errors.Join(errs...)
}

func within(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (b Buckets) check() error {
	if _, err := parseTemplate(b.BucketName); err != nil {
		return fmt.Errorf("bucket_name: %w", err)
	}
	switch {
	case b.MaxBytes < 1 && b.MaxBytes != -1:
		return fmt.Errorf("max_bytes is %d: want at least 1, or -1 for no limit", b.MaxBytes)
	case b.Storage != "file" && b.Storage != "memory":
		return fmt.Errorf("storage is %q: want file or memory", b.Storage)
	case b.Replicas < 1 || b.Replicas > 5:
		return fmt.Errorf("replicas is %d: want 1 to 5", b.Replicas)
	case b.TTL < 0 || b.TTL > 0 && b.TTL < 100*time.Millisecond:
		return fmt.Errorf("ttl_ms is %d: want at least 100, or 0 for ever", b.TTL.Milliseconds())
	case b.History < 1 || b.History > jetstream.KeyValueMaxHistory:
		return fmt.Errorf("history is %d: want 1 to %d", b.History, jetstream.KeyValueMaxHistory)
	}
	return nil
}

func (m Messaging) check() error {
	if m.RequestTimeout < 0 || m.RequestManyTimeout < 0 {
		return errors.New("request_timeout_ms and request_many_timeout_ms must not be negative")
	}
	for _, pattern := range m.Allow {
		if err := checkPattern(pattern); err != nil {
			return fmt.Errorf("allow: %w", err)
		}
	}
	for _, pattern := range m.Deny {
		if err := checkPattern(pattern); err != nil {
			return fmt.Errorf("deny: %w", err)
		}
	}
	return nil
}

func (h HTTP) check() error {
	if h.Timeout < 0 {
		return errors.New("timeout_ms must not be negative")
	}
	if h.MaxBody < 1 || h.MaxBody > maxAnswer {
		return fmt.Errorf("max_body_bytes is %d: want 1 to %d", h.MaxBody, maxAnswer)
	}
	if _, err := parseHosts(h.Allow); err != nil {
		return fmt.Errorf("allow: %w", err)
	}
	if _, err := parseHosts(h.Deny); err != nil {
		return fmt.Errorf("deny: %w", err)
	}
	return nil
}
