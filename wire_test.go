package nex_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"nex"
	"nex/internal/nextest/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// vector reads a file of messages as Nex 0.2.7 sends and takes them.
func vector[T any](t testing.TB, name string) T {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "wire", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return parse[T](t, data)
}

// exchange is one case of the control_*.json files.
type exchange struct {
	Name    string
	Subject string
	Request json.RawMessage
	Reply   json.RawMessage
}

func parse[T any](t testing.TB, data []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return v
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// wantJSON compares two JSON texts by what they mean.
func wantJSON(t testing.TB, got, want []byte) {
	t.Helper()
	if !reflect.DeepEqual(parse[any](t, got), parse[any](t, want)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestRepliesKeepTheirForm decodes the data of every golden reply and encodes
// it again.
func TestRepliesKeepTheirForm(t *testing.T) {
	again := map[string]func(testing.TB, []byte) []byte{
		nex.PingReplyType:     recode[nex.NodeInfo],
		nex.AuctionReplyType:  recode[nex.NodeInfo],
		nex.InfoReplyType:     recode[nex.InfoReply],
		nex.DeployReplyType:   recode[nex.DeployReply],
		nex.StopReplyType:     recode[nex.StopReply],
		nex.LameDuckReplyType: recode[nex.LameDuckReply],
		"wping":               recode[nex.NodeWorkloads],
	}
	seen := map[string]bool{}
	for _, file := range []string{"control_ping_wping", "control_auction", "control_info_lameduck", "control_deploy", "control_stop"} {
		for _, c := range vector[[]exchange](t, file) {
			var e nex.Envelope
			if len(c.Reply) == 0 || c.Reply[0] != '{' {
				continue
			}
			e = parse[nex.Envelope](t, c.Reply)
			wantJSON(t, marshal(t, e), c.Reply)
			if e.Error != "" {
				continue
			}
			kind := e.Type
			if len(c.Subject) > 10 && c.Subject[:10] == nex.WorkloadPingSubject {
				kind = "wping"
			}
			seen[kind] = true
			wantJSON(t, again[kind](t, e.Data), e.Data)
		}
	}
	if len(seen) != len(again) {
		t.Errorf("the vectors hold %v only", seen)
	}
}

func recode[T any](t testing.TB, data []byte) []byte { return marshal(t, parse[T](t, data)) }

// TestDeployRequestsKeepTheirForm does the same with deploy requests: they
// come out as they went in, but a location is always an object.
func TestDeployRequestsKeepTheirForm(t *testing.T) {
	n := 0
	for _, c := range vector[[]exchange](t, "control_deploy") {
		if len(c.Request) == 0 || c.Request[0] != '{' {
			continue
		}
		want := parse[map[string]any](t, c.Request)
		got := parse[map[string]any](t, recode[nex.DeployRequest](t, c.Request))
		if _, ok := want["location"].(string); ok {
			want["location"] = got["location"]
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %v\nwant %v", c.Name, got, want)
		}
		n++
	}
	if n < 20 {
		t.Errorf("only %d requests", n)
	}
}

func TestStopRequestsKeepTheirForm(t *testing.T) {
	for _, c := range vector[[]exchange](t, "control_stop") {
		if len(c.Request) > 0 {
			wantJSON(t, recode[nex.StopRequest](t, c.Request), c.Request)
		}
	}
}

func TestAuctionRequestsKeepTheirForm(t *testing.T) {
	for _, c := range vector[[]exchange](t, "control_auction") {
		if len(c.Request) > 0 {
			wantJSON(t, recode[nex.AuctionRequest](t, c.Request), c.Request)
		}
	}
}

// TestDeployRequestSendsWhatNodesNeed checks the fields without which nodes of
// Nex 0.2.7 crash.
func TestDeployRequestSendsWhatNodesNeed(t *testing.T) {
	got := parse[map[string]any](t, marshal(t, nex.DeployRequest{}))
	var keys []string
	for k := range got {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	want := []string{"description", "environment", "essential", "jsdomain", "location", "sender_public_key", "target_node", "type", "workload_jwt"}
	if !slices.Equal(keys, want) {
		t.Errorf("an empty request has %v, want %v", keys, want)
	}
	if got["description"] != "" || got["essential"] != false || got["jsdomain"] != "" {
		t.Errorf("got %v", got)
	}
}
