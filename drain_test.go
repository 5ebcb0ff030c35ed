package nex_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"nex"
)

// pings has a node answer every ping with the next of some drains, and the
// last for ever; "" is silence.
func pings(t *testing.T, nc *nats.Conn, drains ...string) {
	t.Helper()
	var n atomic.Int64
	_, err := nc.Subscribe("$NEX.PING.N1", func(m *nats.Msg) {
		drain := drains[min(int(n.Add(1)), len(drains))-1]
		if drain == "" {
			return
		}
		if err := m.Respond(fmt.Appendf(nil, `{"type":"x","data":{"node_id":"N1","drain":%s}}`, drain)); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDrainIsFollowed(t *testing.T) {
	c, nc := connect(t)
	pings(t, nc, `{"functions":2,"services":1}`, `{"functions":2,"services":1}`, `{"functions":0,"services":1}`, `{"functions":0,"services":0}`, `{"functions":0,"services":0,"done":true}`)
	var seen []string
	for p, err := range c.Drain(minute(t), "N1") {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, p.String())
	}
	want := []string{
		"3 workloads left: 2 functions, 1 service", "1 workload left: 0 functions, 1 service",
		"no workloads left", "no workloads left", // the last is done
	}
	if !slices.Equal(seen, want) {
		t.Errorf("seen %q", seen)
	}
}

func TestDrainThatCannotBeFollowed(t *testing.T) {
	for name, tc := range map[string]struct {
		drain   string
		timeout time.Duration
		want    string
		is      error
	}{
		"an old node":      {drain: "null", timeout: soon, want: "the node does not drain"},
		"a node for long":  {drain: `{"functions":1}`, timeout: time.Second, want: "wait for node N1 to be empty", is: context.DeadlineExceeded},
		"a silent node":    {drain: "", timeout: time.Second, want: "wait for node N1 to be empty", is: context.DeadlineExceeded},
		"a node that went": {timeout: soon, want: "no such node"},
	} {
		t.Run(name, func(t *testing.T) {
			c, nc := connect(t)
			if tc.want != "no such node" {
				pings(t, nc, tc.drain)
			}
			ctx, cancel := context.WithTimeout(t.Context(), tc.timeout)
			defer cancel()
			var last error
			for _, err := range c.Drain(ctx, "N1") {
				last = err
			}
			if last == nil || !strings.Contains(last.Error(), tc.want) || tc.is != nil && !errors.Is(last, tc.is) {
				t.Errorf("got %v", last)
			}
		})
	}
}

// TestDrainIsSignedForItself: the claims of a drain hold what lame duck mode
// alone does not.
func TestDrainIsSignedForItself(t *testing.T) {
	issuer, _ := nkeys.CreateAccount()
	r, err := nex.Keys{Issuer: issuer}.Drain(nex.Target{Node: "N1"})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := nex.DecodeClaims(r.AdminJWT)
	if err != nil {
		t.Fatal(err)
	}
	drain, err := r.Fingerprint()
	if err != nil || !r.Drain || claims.Request != drain || claims.Allow(nex.ForLameDuck, "", "N1") != nil {
		t.Errorf("%+v with claims %+v, %v", r, claims, err)
	}
	if duck, err := (nex.LameDuckRequest{}).Fingerprint(); err != nil || duck == drain {
		t.Errorf("lame duck mode has the fingerprint of a drain, %v", err)
	}
}
