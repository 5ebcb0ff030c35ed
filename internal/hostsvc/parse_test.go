package hostsvc

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestParse(t *testing.T) {
	kv := func(s string) (any, error) { return ParseKV([]byte(s)) }
	objects := func(s string) (any, error) { return ParseObjectStore([]byte(s)) }
	messaging := func(s string) (any, error) { return ParseMessaging([]byte(s)) }
	web := func(s string) (any, error) { return ParseHTTP([]byte(s)) }
	plain := Buckets{MaxBytes: 64 << 20, Storage: "file", Replicas: 1, History: 1}
	full := Buckets{BucketName: "x", MaxBytes: -1, NoProvision: true, Storage: "memory", Replicas: 3, TTL: time.Second, History: 5}
	for _, c := range []struct {
		parse func(string) (any, error)
		text  string
		want  any
		wrong string // in the error
	}{
		{kv, ``, plain, ""},
		{kv, ` {} `, plain, ""},
		{kv, `{"bucket_name":"x","max_bytes":-1,"jit_provision":false,"storage":"memory","replicas":3,"ttl_ms":1000,"history":5}`, full, ""},
		{kv, `{"bucket_name":null}`, plain, ""},
		{kv, `{"max_byte":1}`, nil, `no key "max_byte"; there are bucket_name, history`},
		{kv, `{"max_bytes":"1"}`, nil, `max_bytes is "1": want a whole number`},
		{kv, `{"max_bytes":1.5}`, nil, "max_bytes"},
		{kv, `{"max_bytes":0}`, nil, "max_bytes is 0"},
		{kv, `{"max_bytes":-2}`, nil, "max_bytes is -2"},
		{kv, `{"storage":"tape"}`, nil, `storage is "tape"`},
		{kv, `{"replicas":6}`, nil, "replicas is 6"},
		{kv, `{"replicas":0}`, nil, "replicas is 0"},
		{kv, `{"ttl_ms":5}`, nil, "ttl_ms is 5"},
		{kv, `{"ttl_ms":9223372036854775807}`, nil, "ttl_ms"},
		{kv, `{"history":65}`, nil, "history is 65"},
		{kv, `{"bucket_name":"a.b"}`, nil, "bucket_name"},
		{kv, `{"jit_provision":1}`, nil, "jit_provision is 1: want true or false"},
		{kv, `[]`, nil, "must be a JSON object"},
		{kv, `{} {}`, nil, "behind"},
		{kv, `{`, nil, "must be a JSON object"},
		{objects, `{"max_bytes":1}`, Buckets{MaxBytes: 1, Storage: "file", Replicas: 1, History: 1}, ""},
		{objects, `{"history":1}`, nil, `host service objectstore: config has no key "history"`},
		{messaging, ``, Messaging{}, ""},
		{messaging, `{"request_timeout_ms":750,"request_many_timeout_ms":1,"allow":["a.>"],"deny":["a.*.b"]}`, Messaging{
			RequestTimeout: 750 * time.Millisecond, RequestManyTimeout: time.Millisecond, Allow: []string{"a.>"}, Deny: []string{"a.*.b"}}, ""},
		{messaging, `{"allow":["a..b"]}`, nil, "allow"},
		{messaging, `{"deny":["a b"]}`, nil, "deny"},
		{messaging, `{"deny":"a"}`, nil, "want a list of strings"},
		{messaging, `{"request_timeout_ms":-1}`, nil, "negative"},
		{web, ``, HTTP{MaxBody: 16 << 20}, ""},
		{web, `{"allow":["10.0.0.0/8"],"deny":["*.x"],"timeout_ms":2500,"max_body_bytes":7}`, HTTP{
			Allow: []string{"10.0.0.0/8"}, Deny: []string{"*.x"}, Timeout: 2500 * time.Millisecond, MaxBody: 7}, ""},
		{web, `{"allow":["10.0.0.0/99"]}`, nil, "allow"},
		{web, `{"deny":["http://x"]}`, nil, "deny"},
		{web, `{"max_body_bytes":0}`, nil, "max_body_bytes is 0"},
		{web, `{"max_body_bytes":99999999}`, nil, "max_body_bytes is 99999999"},
	} {
		got, err := c.parse(c.text)
		switch {
		case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("%s: %v, want …%s…", c.text, err, c.wrong)
		case c.wrong == "" && (err != nil || !reflect.DeepEqual(got, c.want)):
			t.Errorf("%s: %+v, %v", c.text, got, err)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"template": {KV: Buckets{BucketName: "."}}, "storage": {ObjectStore: Buckets{Storage: "x"}}, "subject": {Messaging: Messaging{Deny: []string{""}}},
		"host": {HTTP: HTTP{Allow: []string{"a b"}}}, "calls": {MaxConcurrency: -1}, "rate": {RatePerSecond: -1}, "body": {HTTP: HTTP{MaxBody: maxAnswer + 1}},
	} {
		if _, err := New(c, func(context.Context) (*nats.Conn, error) { return nil, nil }, nil); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
