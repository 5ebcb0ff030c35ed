package nex_test

import (
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"nex"
)

// eventCase is one case of events.json.
type eventCase struct {
	Name, Subject string
	Event         json.RawMessage
}

// attributes is a CloudEvent as it travels.
type attributes struct {
	ID, Source, Type, SpecVersion, DataContentType, Namespace string

	Time time.Time
	Data json.RawMessage
}

// dataOf decodes an event's data by its type.
var dataOf = map[string]func(testing.TB, []byte) nex.EventData{
	"node_started":            eventData[nex.NodeStarted],
	"heartbeat":               eventData[nex.Heartbeat],
	"node_entered_lameduck":   eventData[nex.NodeEnteredLameDuck],
	"node_stopped":            eventData[nex.NodeStopped],
	"workload_deployed":       eventData[nex.WorkloadDeployed],
	"workload_undeployed":     eventData[nex.WorkloadUndeployed],
	"workload_restarting":     eventData[nex.WorkloadRestarting],
	"function_exec_succeeded": eventData[nex.FunctionSucceeded],
	"function_exec_failed":    eventData[nex.FunctionFailed],
}

func eventData[T nex.EventData](t testing.TB, data []byte) nex.EventData { return parse[T](t, data) }

func TestParseEvent(t *testing.T) {
	for _, c := range vector[[]eventCase](t, "events") {
		want := parse[attributes](t, c.Event)
		e, err := nex.ParseEvent(c.Subject, c.Event)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if e.Type() != want.Type || e.Source() != want.Source || e.ID() != want.ID || !e.Time().Equal(want.Time) ||
			e.Subject() != c.Subject || c.Subject != nex.EventSubject(e.Namespace, e.Type()) {
			t.Errorf("%s: %+v", c.Name, e)
		}
		wantJSON(t, e.Data(), want.Data)
		wantJSON(t, marshal(t, e.Event), c.Event)
	}
}

func TestParseEventRefuses(t *testing.T) {
	ok := vector[[]eventCase](t, "events")[0]
	for name, c := range map[string]eventCase{
		"log subject": {Subject: "$NEX.logs.a.b", Event: ok.Event},
		"nothing":     {Subject: ok.Subject},
		"null":        {Subject: ok.Subject, Event: []byte("null")},
		"no event":    {Subject: ok.Subject, Event: []byte("{}")},
		"array":       {Subject: ok.Subject, Event: []byte("[]")},
		"cut off":     {Subject: ok.Subject, Event: ok.Event[:len(ok.Event)/2]},
		"no base64":   {Subject: ok.Subject, Event: []byte(`{"specversion":"1.0","data_base64":5}`)},
	} {
		if e, err := nex.ParseEvent(c.Subject, c.Event); err == nil {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestNewEventHasTheFormOfTheVectors encodes an event of every type.
func TestNewEventHasTheFormOfTheVectors(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range vector[[]eventCase](t, "events") {
		want := parse[attributes](t, c.Event)
		if strings.Contains(c.Name, "decode only") {
			continue
		}
		seen[want.Type] = true
		ns, _, err := nex.ParseEventSubject(c.Subject)
		if err != nil {
			t.Fatal(err)
		}
		e, err := nex.NewEvent(ns, want.Source, dataOf[want.Type](t, want.Data))
		if err != nil || e.Subject() != c.Subject {
			t.Errorf("%s: subject %s, %v", c.Name, e.Subject(), err)
		}
		body := marshal(t, e.Event)
		got := parse[attributes](t, body)
		if _, err := uuid.Parse(got.ID); err != nil || time.Since(got.Time).Abs() > time.Hour || got.Time.Location() != time.UTC {
			t.Errorf("%s: id %q at %v", c.Name, got.ID, got.Time)
		}
		if g, w := keysOf(t, body), keysOf(t, c.Event); !slices.Equal(g, w) {
			t.Errorf("%s: attributes %v, want %v", c.Name, g, w)
		}
		wantJSON(t, got.Data, want.Data)
		got.ID, got.Time, got.Data, want.ID, want.Time, want.Data = "", time.Time{}, nil, "", time.Time{}, nil
		wantJSON(t, marshal(t, got), marshal(t, want))
	}
	for typ := range dataOf {
		if !seen[typ] && typ != "workload_restarting" {
			t.Errorf("no vector of %s", typ)
		}
	}
}

func keysOf(t testing.TB, object []byte) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(parse[map[string]json.RawMessage](t, object)))
}

func TestEventsDiffer(t *testing.T) {
	data := nex.WorkloadRestarting{Name: "svc", Attempt: 2, Reason: "guest lost", DelayMS: 500}
	a, err := nex.NewEvent("default", "N1-w1", data)
	if err != nil {
		t.Fatal(err)
	}
	b, err := nex.NewEvent("default", "N1-w1", data)
	if err != nil || a.ID() == b.ID() {
		t.Errorf("ids %s and %s, %v", a.ID(), b.ID(), err)
	}
	if a.Subject() != "$NEX.events.default.workload_restarting" {
		t.Errorf("subject %s", a.Subject())
	}
	wantJSON(t, a.Data(), []byte(`{"workload_name":"svc","attempt":2,"reason":"guest lost","delay_ms":500}`))
}

func TestEmptyFieldsOfEvents(t *testing.T) {
	for want, data := range map[string]nex.EventData{
		`{"version":"","id":""}`: nex.NodeStarted{},
		`{"version":"","node_id":"","uptime":"","running_machines":0}`:               nex.Heartbeat{},
		`{"id":"","functions":0,"services":0,"done":false}`:                          nex.NodeDraining{},
		`{"workload_name":"","attempt":0,"reason":"","code":""}`:                     nex.AutostartFailed{},
		`{"workload_name":"","code":0}`:                                              nex.WorkloadUndeployed{},
		`{"workload_name":"","trigger_subject":"","namespace":"","error":""}`:        nex.FunctionFailed{},
		`{"workload_name":"","trigger_subject":"","elapsed_nanos":0,"namespace":""}`: nex.FunctionSucceeded{},
		`{"workload_name":"","attempt":0,"reason":"","delay_ms":0}`:                  nex.WorkloadRestarting{},
	} {
		wantJSON(t, marshal(t, data), []byte(want))
	}
}

func FuzzParseEvent(f *testing.F) {
	for _, c := range vector[[]eventCase](f, "events") {
		f.Add(c.Subject, []byte(c.Event))
	}
	f.Add("$NEX.events.a.b", []byte(`{"specversion":"1.0","data_base64":"eA==","x":null}`))
	f.Add("$NEX.events.a.b", []byte(`{"specversion":"0.3","datacontentencoding":"base64","data":5}`))
	f.Fuzz(func(t *testing.T, subject string, data []byte) {
		e, err := nex.ParseEvent(subject, data)
		if err != nil {
			return
		}
		if ns, _, bad := nex.ParseEventSubject(subject); bad != nil || e.Namespace != ns {
			t.Errorf("%q: namespace %q, %v", subject, e.Namespace, bad)
		}
		body, err := json.Marshal(e.Event)
		if err != nil || e.Validate() != nil {
			return // it says less than an event must
		}
		again, err := nex.ParseEvent(subject, body)
		if err != nil || again.ID() != e.ID() || again.Type() != e.Type() || again.Source() != e.Source() || !again.Time().Equal(e.Time()) {
			t.Errorf("%s became %s, %v", data, body, err)
		}
	})
}

// logCase is one case of logs.json.
type logCase struct {
	Name, Subject string
	Payload       json.RawMessage
	PayloadRaw    string `json:"payload_raw"`
	Produce       bool
	Normalised    *struct {
		Workload string
		Level    slog.Level
	}
}

func TestParseLog(t *testing.T) {
	for _, c := range vector[[]logCase](t, "logs") {
		l, err := nex.ParseLog(c.Subject, c.Payload)
		if c.PayloadRaw != "" || strings.Contains(c.Name, "numeric") {
			if err == nil {
				t.Errorf("%s: %+v", c.Name, l)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		r := parse[nex.LogRecord](t, c.Payload)
		workload, level := strings.Split(c.Subject, ".")[4], r.Level
		if n := c.Normalised; n != nil {
			workload, level = n.Workload, n.Level
		}
		want := nex.Log{Namespace: "default", Node: strings.Split(c.Subject, ".")[3], Workload: workload, ID: r.ID, Level: level, Text: r.Text}
		if l != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.Name, l, want)
		}
		if c.Produce {
			s := nex.LogSubject{Namespace: l.Namespace, Node: l.Node, Workload: l.Workload, ID: l.ID}
			if s.String() != c.Subject {
				t.Errorf("%s: subject %s, want %s", c.Name, s, c.Subject)
			}
			wantJSON(t, marshal(t, nex.LogRecord{Text: l.Text, Level: l.Level, ID: l.ID}), c.Payload)
		}
	}
}

// TestParseLogLevelsOfOldNodes: an old node publishes its agent's level
// numbers 0 to 6 as slog levels.
func TestParseLogLevelsOfOldNodes(t *testing.T) {
	for number, want := range []slog.Level{
		slog.LevelError, slog.LevelError, slog.LevelError, slog.LevelWarn, slog.LevelInfo, slog.LevelDebug, slog.LevelDebug,
	} {
		body := marshal(t, nex.LogRecord{Level: slog.Level(number), ID: "id"})
		l, err := nex.ParseLog("$NEX.logs.ns.N1.id.svc", body)
		if err != nil || l.Level != want || l.Workload != "svc" || l.ID != "id" {
			t.Errorf("level %d, %s: %+v, %v", number, body, l, err)
		}
	}
}

// TestParseLogOfAWorkloadNamedLikeItsID: nothing is swapped there.
func TestParseLogOfAWorkloadNamedLikeItsID(t *testing.T) {
	l, err := nex.ParseLog("$NEX.logs.ns.N1.same.same", []byte(`{"level":"WARN","id":"same"}`))
	if err != nil || l.Level != slog.LevelWarn {
		t.Errorf("got %+v, %v", l, err)
	}
}

// TestLogRecordHasTheCause: beside the text of Nex 0.2.7, which is always the
// same; records without a cause look as they always did.
func TestLogRecordHasTheCause(t *testing.T) {
	body := marshal(t, nex.LogRecord{Text: "Function execution failed", Level: slog.LevelError, ID: "w1", Error: "no such thing"})
	wantJSON(t, body, []byte(`{"text":"Function execution failed","level":"ERROR","id":"w1","error":"no such thing"}`))
	l, err := nex.ParseLog("$NEX.logs.ns.N1.fn.w1", body)
	if err != nil || l.Text != "Function execution failed" || l.Error != "no such thing" {
		t.Errorf("got %+v, %v", l, err)
	}
	wantJSON(t, marshal(t, nex.LogRecord{}), []byte(`{"text":"","level":"INFO","id":""}`))
}

func FuzzParseLog(f *testing.F) {
	for _, c := range vector[[]logCase](f, "logs") {
		f.Add(c.Subject, []byte(c.Payload))
	}
	f.Add("$NEX.logs.a.b.c.d", []byte(`{"level":"INFO+99999999999999999999","id":null}`))
	f.Fuzz(func(t *testing.T, subject string, data []byte) {
		l, err := nex.ParseLog(subject, data)
		s, bad := nex.ParseLogSubject(subject)
		if err != nil {
			return
		}
		if bad != nil || l.Workload+l.ID != s.Workload+s.ID && l.Workload+l.ID != s.ID+s.Workload || l.Namespace != s.Namespace || l.Node != s.Node {
			t.Errorf("%q: %+v", subject, l)
		}
		s.Workload, s.ID = l.Workload, l.ID // in their order
		again, err := nex.ParseLog(s.String(), marshal(t, nex.LogRecord{Text: l.Text, Level: l.Level, ID: l.ID, Error: l.Error}))
		if err != nil || again != l {
			t.Errorf("%+v became %+v, %v", l, again, err)
		}
	})
}
