package nex_test

import (
	"errors"
	"fmt"
	"testing"

	"nex"
)

func TestCodeOf(t *testing.T) {
	full := nex.Errorf(nex.Exhausted, "node runs %d of %d workloads", 3, 3)
	for _, c := range []struct {
		err  error
		want nex.Code
	}{
		{nil, ""},
		{errors.New("boom"), nex.Internal},
		{full, nex.Exhausted},
		{fmt.Errorf("deploy: %w", fmt.Errorf("admit: %w", full)), nex.Exhausted},
		{errors.Join(errors.New("close"), full), nex.Exhausted},
		{fmt.Errorf("%w: %w", nex.Errorf(nex.Denied, "no"), full), nex.Denied},
		{fmt.Errorf("told %v", full), nex.Internal},
	} {
		if got := nex.CodeOf(c.err); got != c.want {
			t.Errorf("%v: got %q, want %q", c.err, got, c.want)
		}
	}
	if full.Error() != "node runs 3 of 3 workloads" {
		t.Errorf("text: %s", full)
	}
}

func TestStatus(t *testing.T) {
	for code, want := range map[nex.Code]int{
		nex.Invalid: 400, nex.Unauthorized: 401, nex.Denied: 403, nex.NotFound: 404, nex.NoSuchNode: 404,
		nex.Exhausted: 429, nex.LameDuck: 503, nex.Unsupported: 501, nex.Unavailable: 503, nex.Internal: 500,
		nex.Timeout: 504, nex.Exception: 500, nex.OutOfMemory: 507, nex.Overloaded: 503, nex.BadReply: 502,
		"": 500, "of tomorrow": 500,
	} {
		if got := code.Status(); got != want {
			t.Errorf("%s: got %d, want %d", code, got, want)
		}
	}
}

func TestErrorTravels(t *testing.T) {
	e := nex.Errorf(nex.Timeout, "too slow")
	wantJSON(t, marshal(t, e), []byte(`{"code":"timeout","message":"too slow"}`))
	if again := parse[nex.Error](t, marshal(t, e)); again != *e {
		t.Errorf("got %+v", again)
	}
}
