package hostsvc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// ParseKV reads the JSON object config of the key-value service, which may be
// empty: bucket_name, max_bytes, jit_provision, storage, replicas, ttl_ms and
// history.
func ParseKV(config []byte) (Buckets, error) {
	b, err := parseBuckets(config, func(b *Buckets, keys map[string]any) { keys["history"] = &b.History })
	return b, within("host service kv", err)
}

// ParseObjectStore reads the JSON object config of the object store, which may
// be empty: what there is for the key-value service, but no history.
func ParseObjectStore(config []byte) (Buckets, error) {
	b, err := parseBuckets(config, func(*Buckets, map[string]any) {})
	return b, within("host service objectstore", err)
}

func parseBuckets(config []byte, more func(*Buckets, map[string]any)) (Buckets, error) {
	b := Buckets{}.withDefaults("kv")
	b.BucketName = ""
	var ttl milliseconds
	provision := true
	keys := map[string]any{
		"bucket_name": &b.BucketName, "max_bytes": &b.MaxBytes, "jit_provision": &provision,
		"storage": &b.Storage, "replicas": &b.Replicas, "ttl_ms": &ttl,
	}
	more(&b, keys)
	if err := parseObject(config, keys); err != nil {
		return Buckets{}, err
	}
	b.TTL, b.NoProvision = time.Duration(ttl), !provision
	complete := b.withDefaults("kv")
	complete.MaxBytes, complete.Replicas, complete.History = b.MaxBytes, b.Replicas, b.History // 0 is not the default here
	return b, complete.check()
}

// ParseMessaging reads the JSON object config of messaging, which may be empty:
// request_timeout_ms, request_many_timeout_ms, allow and deny.
func ParseMessaging(config []byte) (Messaging, error) {
	var m Messaging
	var one, many milliseconds
	err := parseObject(config, map[string]any{
		"request_timeout_ms": &one, "request_many_timeout_ms": &many, "allow": &m.Allow, "deny": &m.Deny,
	})
	m.RequestTimeout, m.RequestManyTimeout = time.Duration(one), time.Duration(many)
	if err == nil {
		err = m.check()
	}
	return m, within("host service messaging", err)
}

// ParseHTTP reads the JSON object config of the HTTP service, which may be
// empty: allow, deny, timeout_ms and max_body_bytes.
func ParseHTTP(config []byte) (HTTP, error) {
	h := Config{}.withDefaults().HTTP
	var timeout milliseconds
	err := parseObject(config, map[string]any{
		"allow": &h.Allow, "deny": &h.Deny, "timeout_ms": &timeout, "max_body_bytes": &h.MaxBody,
	})
	h.Timeout = time.Duration(timeout)
	if err == nil {
		err = h.check()
	}
	return h, within("host service http", err)
}

// milliseconds is a time in JSON.
type milliseconds time.Duration

// UnmarshalJSON implements [json.Unmarshaler].
func (m *milliseconds) UnmarshalJSON(data []byte) error {
	var n int64
	if err := json.Unmarshal(data, &n); err != nil {
		return err
	}
	const longest = int64(100 * 365 * 24 * time.Hour / time.Millisecond)
	if n > longest || n < -longest {
		return errors.New("too long")
	}
	*m = milliseconds(time.Duration(n) * time.Millisecond)
	return nil
}

// parseObject reads a JSON object of known keys; what it does not have stays as
// it is.
func parseObject(config []byte, keys map[string]any) error {
	if len(bytes.TrimSpace(config)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(config))
	var object map[string]json.RawMessage
	if err := d.Decode(&object); err != nil {
		return errors.New("config must be a JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("config has something behind its object")
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		to, known := keys[key]
		if !known {
			return fmt.Errorf("config has no key %.64q; there are %s", key, strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
		}
		if err := json.Unmarshal(object[key], to); err != nil {
			return fmt.Errorf("%s is %.64s: want %s", key, object[key], want(to))
		}
	}
	return nil
}

// want describes what belongs into v.
func want(v any) string {
	switch v.(type) {
	case *string:
		return "a string"
	case *bool:
		return "true or false"
	case *[]string:
		return "a list of strings"
	default:
		return "a whole number that is not too large"
	}
}
