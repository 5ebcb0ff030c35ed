//go:build unix

package main

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

func TestChecks(t *testing.T) {
	failed := nats.Header{micro.ErrorHeader: {"no items"}}
	for name, tt := range map[string]struct {
		check check
		reply nats.Msg
		ok    bool
	}{
		"text":                     {text("hey"), nats.Msg{Data: []byte("hey")}, true},
		"no text":                  {text(""), nats.Msg{}, true},
		"more text":                {text("hey"), nats.Msg{Data: []byte("hey\n")}, false},
		"object in another order":  {object(`{"a":1,"b":[2]}`), nats.Msg{Data: []byte(`{ "b": [2], "a": 1.0 }`)}, true},
		"object with other value":  {object(`{"a":1}`), nats.Msg{Data: []byte(`{"a":2}`)}, false},
		"object with more members": {object(`{"a":1}`), nats.Msg{Data: []byte(`{"a":1,"b":2}`)}, false},
		"object cut off":           {object(`{"a":1}`), nats.Msg{Data: []byte(`{"a":1`)}, false},
		"failure":                  {failure("no items"), nats.Msg{Header: failed}, true},
		"other failure":            {failure("no money"), nats.Msg{Header: failed}, false},
		"no failure":               {failure("no items"), nats.Msg{Data: []byte("no items")}, false},
		"service":                  {service("Echo"), nats.Msg{Data: []byte(`{"name":"Echo","type":"io.nats.micro.v1.ping_response"}`)}, true},
		"other service":            {service("Echo"), nats.Msg{Data: []byte(`{"name":"Other","type":"io.nats.micro.v1.ping_response"}`)}, false},
		"other response":           {service("Echo"), nats.Msg{Data: []byte(`{"name":"Echo","type":"io.nats.micro.v1.info_response"}`)}, false},
		"no response":              {service("Echo"), nats.Msg{Data: []byte(`Echo`)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tt.check(&tt.reply); (err == nil) != tt.ok {
				t.Errorf("check returned %v, want success: %t", err, tt.ok)
			}
		})
	}
}
