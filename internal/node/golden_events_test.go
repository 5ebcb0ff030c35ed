package node_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"nex/internal/nextest"
	"nex/internal/rawclient"
)

// told is one case of events.json or logs.json.
type told struct {
	Name, Subject  string
	Event, Payload json.RawMessage
	Produce        bool // of logs
}

// goldenUntold are the events that this test does not see, with the reason.
var goldenUntold = map[string]string{
	"heartbeat":                           "comes every 30 s; the tests of the root package check its form",
	"workload_undeployed (start failure)": "a service that cannot start was never deployed here: the reply to DEPLOY says why",
	"agent_started (decode only)":         "no node sends it",
}

// TestGoldenEventsAndLogs has a node do all that it tells of.
func TestGoldenEventsAndLogs(t *testing.T) {
	w := newWired(t, nextest.Server(t), `{"tags": {"node_name": "quiet-river", "simple": "true"}}`)
	w.upload(t, "fn.js", `(subject, payload) => { if (payload.length) throw new Error("no such thing"); return "fine" }`)
	w.upload(t, "svc", "#!/bin/sh\necho 'listening on :8080'\necho boom >&2\nexit 3\n")
	fn := w.deploy(t, w.request(t, rawclient.Workload{Name: "echofn", Type: "v8", Key: "fn.js", Triggers: []string{"js.*"}}, nil))
	for _, payload := range []string{"", "boom"} {
		if _, err := w.Conn.Request("js.echo", []byte(payload), nextest.Patience); err != nil {
			t.Fatal(err)
		}
	}
	svc := w.deploy(t, w.request(t, rawclient.Workload{Name: "svc", Type: "native", Key: "svc"}, nil))
	for range 2 {
		w.ask(t, "$NEX.LAMEDUCK."+w.node(), nil)
	}
	if ping, err := w.Ping(); err != nil || !bytes.Contains(ping, []byte(`"nex.lameduck":"true"`)) {
		t.Errorf("ping of a lame duck: %s, %v", ping, err)
	}
	seen := w.until(t, "$NEX.events.default.workload_undeployed")
	w.end()
	seen = append(seen, w.until(t, "$NEX.events.system.node_stopped")...)
	for _, m := range seen { // the files know one workload
		for _, id := range []string{fn, svc} {
			m.Subject = strings.ReplaceAll(m.Subject, id, goldenID)
			m.Data = bytes.ReplaceAll(m.Data, []byte(id), []byte(goldenID))
		}
	}
	for _, c := range golden[[]told](t, "events") {
		t.Run("events/"+c.Name, func(t *testing.T) {
			if why, untold := goldenUntold[c.Name]; untold {
				t.Skip(why)
			}
			wantEvent(t, seen, c)
		})
	}
	for _, c := range golden[[]told](t, "logs") {
		if c.Produce {
			t.Run("logs/"+c.Name, func(t *testing.T) { wantLog(t, seen, c) })
		}
	}
	ducks := slices.DeleteFunc(seen, func(m *nats.Msg) bool { return m.Subject != "$NEX.events.system.node_entered_lameduck" })
	if len(ducks) != 1 {
		t.Errorf("%d events of a lame duck", len(ducks))
	}
}

// until collects what is told, up to a message on a subject.
func (w *wired) until(t *testing.T, subject string) (all []*nats.Msg) {
	t.Helper()
	for {
		m := nextest.Await(t, w.told, subject)
		if all = append(all, m); m.Subject == subject {
			return all
		}
	}
}

// wantEvent looks for an event that is the golden one but for what differs by
// nature.
func wantEvent(t *testing.T, seen []*nats.Msg, c told) {
	t.Helper()
	var want map[string]any
	if err := json.Unmarshal(c.Event, &want); err != nil {
		t.Fatal(err)
	}
	name := want["data"].(map[string]any)["workload_name"]
	for _, m := range seen {
		var got map[string]any
		if m.Subject != c.Subject || json.Unmarshal(m.Data, &got) != nil {
			continue
		}
		data, _ := got["data"].(map[string]any)
		if data == nil || data["workload_name"] != name {
			continue
		}
		text := string(m.Data)
		eventNature(t, got, want)
		if len(m.Header) > 0 || !reflect.DeepEqual(byNature("", got, want), any(want)) {
			t.Errorf("\ngot  %v %s\nwant %s", m.Header, text, c.Event)
		}
		return
	}
	t.Errorf("nobody told of %s", c.Name)
}

// eventNature does what byNature does, for events.
func eventNature(t *testing.T, got, want map[string]any) {
	t.Helper()
	id, _ := got["id"].(string)
	if _, err := uuid.Parse(id); err == nil { // random
		got["id"] = want["id"]
	}
	when, _ := got["time"].(string)
	if at, err := time.Parse(time.RFC3339Nano, when); err == nil && at.Location() == time.UTC { // it is later now
		got["time"] = want["time"]
	}
	data, wanted := got["data"].(map[string]any), want["data"].(map[string]any)
	if nanos, ok := data["elapsed_nanos"].(float64); ok && nanos > 0 { // calls take what they take
		data["elapsed_nanos"] = wanted["elapsed_nanos"]
	}
	if got["type"] == "function_exec_failed" { // 0.2.7 knew one error, and no codes
		if text, _ := data["error"].(string); strings.Contains(text, "no such thing") && data["code"] == "exception" {
			data["error"] = wanted["error"]
			delete(data, "code")
		}
	}
}

var nanoseconds = regexp.MustCompile(`\d+ns`)

// wantLog looks for a log record that is the golden one but for what differs
// by nature.
func wantLog(t *testing.T, seen []*nats.Msg, c told) {
	t.Helper()
	var want map[string]any
	if err := json.Unmarshal(c.Payload, &want); err != nil {
		t.Fatal(err)
	}
	nature := func(record map[string]any) map[string]any {
		record = maps.Clone(record)
		text, _ := record["text"].(string)
		text = strings.TrimSuffix(text, "\n")                             // 0.2.7 sends what it read from a pipe, our nodes a line
		record["text"] = nanoseconds.ReplaceAllLiteralString(text, "1ns") // calls take what they take
		if cause, _ := record["error"].(string); text == "Function execution failed" && strings.Contains(cause, "no such thing") {
			delete(record, "error") // ours: 0.2.7 does not tell the cause
		}
		return record
	}
	var others []string
	for _, m := range seen {
		var got map[string]any
		if m.Subject != c.Subject || json.Unmarshal(m.Data, &got) != nil {
			continue
		}
		if reflect.DeepEqual(nature(got), nature(want)) {
			return
		}
		others = append(others, string(m.Data))
	}
	t.Errorf("want %s\nof   %q", c.Payload, others)
}
