package nex

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"
)

// EventData is the payload of one type of event.
type EventData interface {
	// EventType is the last token of the event's subject.
	EventType() string
}

// NodeStarted is emitted once a node is ready for requests.
type NodeStarted struct {
	Version string            `json:"version"`
	ID      string            `json:"id"`
	Tags    map[string]string `json:"tags,omitempty"`
}

// Heartbeat is emitted every 30 s by a running node.
type Heartbeat struct {
	Version         string            `json:"version"`
	NodeID          string            `json:"node_id"`
	Nexus           string            `json:"nexus,omitempty"`
	Uptime          string            `json:"uptime"`
	Tags            map[string]string `json:"tags,omitempty"`
	RunningMachines int               `json:"running_machines"`
	Drain           *DrainProgress    `json:"drain,omitempty"` // see [NodeInfo]
}

// MachineBootFailed is emitted when a machine that was to be kept ready did not
// boot. Unknown to Nex 0.2.7.
type MachineBootFailed struct {
	Reason    string `json:"reason"`
	RetryInMS int64  `json:"retry_in_ms"`
}

// ReportsLost is emitted when NATS is back after it was away for so long that
// events and log records had to be dropped. Unknown to Nex 0.2.7.
type ReportsLost struct {
	Count int64 `json:"count"`
}

// NodeEnteredLameDuck is emitted when a node stops taking new work.
type NodeEnteredLameDuck struct {
	Version string `json:"version"`
	ID      string `json:"id"`
}

// NodeDraining is emitted by a node that ends its workloads, since it was asked
// to or is being stopped: when it begins, at most every second while there
// are fewer and fewer, and when none is left. Unknown to Nex 0.2.7.
type NodeDraining struct {
	ID string `json:"id"`
	DrainProgress
}

// NodeStopped is emitted last by a node that shuts down in order.
type NodeStopped struct {
	ID       string `json:"id"`
	Graceful bool   `json:"graceful"`
}

// WorkloadDeployed is emitted when a workload runs, first or again.
type WorkloadDeployed struct {
	Name string `json:"workload_name"`
	Code int    `json:"code"`
}

// WorkloadUndeployed is emitted once for every workload that ended, however
// it ended. Code is the exit status of a service, -1 for a signal, 0 for a
// workload that was stopped.
type WorkloadUndeployed struct {
	Name    string `json:"workload_name"`
	Code    int    `json:"code"`
	Message string `json:"message,omitempty"`
}

// WorkloadRestarting is emitted when a workload that was lost or failed is
// going to be started again. Unknown to Nex 0.2.7.
type WorkloadRestarting struct {
	Name    string `json:"workload_name"`
	Attempt int    `json:"attempt"`
	Reason  string `json:"reason"`
	DelayMS int64  `json:"delay_ms"`
	// Offender is set for a function that ran when its machine was lost, and
	// so may have been the reason. It runs on a machine of its own from now on.
	Offender bool `json:"offender,omitempty"`
}

// WorkloadHealth is emitted when a service that says how to tell gets ready, or
// does not answer any more. Unknown to Nex 0.2.7.
type WorkloadHealth struct {
	Name    string `json:"workload_name"`
	Healthy bool   `json:"healthy"`
	// Reason says why it is not.
	Reason string `json:"reason,omitempty"`
}

// The causes of [WorkloadLimitHit].
const (
	CauseOOM  = "oom_killed" // it wanted more memory, and processes of it were killed
	CausePIDs = "pids"       // it wanted more processes and threads, which did not begin
	CauseDisk = "disk"       // its directory held more, or a file of it was to; it was ended
)

// WorkloadLimitHit is emitted when a service met one of its limits: for
// processes that could not begin at most once a minute. Unknown to Nex 0.2.7.
type WorkloadLimitHit struct {
	Name string `json:"workload_name"`
	// Cause is oom_killed, pids or disk.
	Cause string `json:"cause"`
	// Message says it in words, with the limit.
	Message string `json:"message"`
}

// AutostartFailed is emitted when a workload of a node's configuration did not
// start. Unknown to Nex 0.2.7.
type AutostartFailed struct {
	Name    string `json:"workload_name"`
	Attempt int    `json:"attempt"`
	Reason  string `json:"reason"`
	Code    Code   `json:"code"`
	RetryMS int64  `json:"retry_ms,omitempty"` // when it is tried again; 0 for never
}

// FunctionSucceeded is emitted for each call that was answered. Trigger is
// the subject as registered, wildcards included.
type FunctionSucceeded struct {
	Name         string `json:"workload_name"`
	Trigger      string `json:"trigger_subject"`
	ElapsedNanos int64  `json:"elapsed_nanos"`
	Namespace    string `json:"namespace"`
}

// FunctionFailed is emitted for each call that failed. Code is unknown to Nex
// 0.2.7.
type FunctionFailed struct {
	Name      string `json:"workload_name"`
	Trigger   string `json:"trigger_subject"`
	Namespace string `json:"namespace"`
	Error     string `json:"error"`
	Code      Code   `json:"code,omitempty"`
}

// HostCallRefused is emitted when the node's policy or a limit refused what a
// workload asked of a host service: at most once a second for each workload,
// service and code. Unknown to Nex 0.2.7.
type HostCallRefused struct {
	Name    string `json:"workload_name"`
	Service string `json:"service"`
	Method  string `json:"method"`
	Code    Code   `json:"code"`
	Reason  string `json:"reason"`
	Count   int64  `json:"count"` // of such refusals since the event before
}

// EventType returns "node_started".
func (NodeStarted) EventType() string { return "node_started" }

// EventType returns "heartbeat".
func (Heartbeat) EventType() string { return "heartbeat" }

// EventType returns "machine_boot_failed".
func (MachineBootFailed) EventType() string { return "machine_boot_failed" }

// EventType returns "reports_lost".
func (ReportsLost) EventType() string { return "reports_lost" }

// EventType returns "node_entered_lameduck".
func (NodeEnteredLameDuck) EventType() string { return "node_entered_lameduck" }

// EventType returns "node_draining".
func (NodeDraining) EventType() string { return "node_draining" }

// EventType returns "node_stopped".
func (NodeStopped) EventType() string { return "node_stopped" }

// EventType returns "workload_deployed".
func (WorkloadDeployed) EventType() string { return "workload_deployed" }

// EventType returns "workload_undeployed".
func (WorkloadUndeployed) EventType() string { return "workload_undeployed" }

// EventType returns "workload_restarting".
func (WorkloadRestarting) EventType() string { return "workload_restarting" }

// EventType returns "workload_health".
func (WorkloadHealth) EventType() string { return "workload_health" }

// EventType returns "workload_limit_hit".
func (WorkloadLimitHit) EventType() string { return "workload_limit_hit" }

// EventType returns "host_call_refused".
func (HostCallRefused) EventType() string { return "host_call_refused" }

// EventType returns "autostart_failed".
func (AutostartFailed) EventType() string { return "autostart_failed" }

// EventType returns "function_exec_succeeded".
func (FunctionSucceeded) EventType() string { return "function_exec_succeeded" }

// EventType returns "function_exec_failed".
func (FunctionFailed) EventType() string { return "function_exec_failed" }

// Event is a CloudEvent 1.0 and where it was published.
type Event struct {
	Namespace string
	cloudevents.Event
}

// NewEvent makes an event of now with a fresh id. Source is the node's id,
// for events of a workload followed by "-" and the workload's id.
func NewEvent(namespace, source string, data EventData) (Event, error) {
	e := cloudevents.New()
	e.SetID(uuid.NewString())
	e.SetSource(source)
	e.SetType(data.EventType())
	e.SetTime(time.Now().UTC())
	if strings.Contains(source, "-") { // as Nex 0.2.7: only what comes from a workload names its namespace
		e.SetExtension("namespace", namespace)
	}
	if err := e.SetData(cloudevents.ApplicationJSON, data); err != nil {
		return Event{}, fmt.Errorf("encode %s event: %w", data.EventType(), err)
	}
	return Event{Namespace: namespace, Event: e}, nil
}

// Subject is where the event is published.
func (e Event) Subject() string { return EventSubject(e.Namespace, e.Type()) }

// ParseEvent reads a message received on an event subject.
func ParseEvent(subject string, data []byte) (Event, error) {
	ns, _, err := ParseEventSubject(subject)
	if err != nil {
		return Event{}, err
	}
	e, err := decodeEvent(data)
	if err != nil {
		return Event{}, fmt.Errorf("event on %s: %w", subject, err)
	}
	return Event{Namespace: ns, Event: e}, nil
}

// decodeEvent also survives the texts on which the library panics, as with a
// data_base64 that is no string: anyone may publish on an event subject.
func decodeEvent(data []byte) (e cloudevents.Event, err error) {
	defer func() {
		if p := recover(); p != nil {
			e, err = cloudevents.Event{}, fmt.Errorf("malformed CloudEvent: %v", p)
		}
	}()
	err = json.Unmarshal(data, &e)
	return e, err
}

// Log is one record of a workload's log. Records carry no time: [Client.Logs]
// sets it to when a record came.
type Log struct {
	Time      time.Time  `json:"time"`
	Namespace string     `json:"namespace"`
	Node      string     `json:"node_id"`
	Workload  string     `json:"workload_name"`
	ID        string     `json:"workload_id"`
	Level     slog.Level `json:"level"`
	Text      string     `json:"text"`
	Error     string     `json:"error,omitempty"` // why a function call failed
}

// LogRecord is the body of a message on a [LogSubject].
type LogRecord struct {
	Text  string     `json:"text"`
	Level slog.Level `json:"level"`
	ID    string     `json:"id"`
	// Error is why a function call failed. Unknown to Nex 0.2.7, whose text of
	// such a record is the same for every cause.
	Error string `json:"error,omitempty"`
}

// ParseLog reads a message received on a log subject. Records that Nex 0.2.7
// relays from its agents, known by swapped subject tokens, get back their
// order and the level that was meant.
func ParseLog(subject string, data []byte) (Log, error) {
	s, err := ParseLogSubject(subject)
	if err != nil {
		return Log{}, err
	}
	var r LogRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return Log{}, fmt.Errorf("log record on %s: %w", subject, err)
	}
	l := Log{Namespace: s.Namespace, Node: s.Node, Workload: s.Workload, ID: s.ID, Level: r.Level, Text: r.Text, Error: r.Error}
	if s.Workload == r.ID && s.ID != r.ID {
		l.Workload, l.ID = s.ID, s.Workload
		l.Level = agentLevel(r.Level)
	}
	return l, nil
}

// agentLevel undoes a cast: agents of Nex 0.2.7 count panic 0, fatal 1,
// error 2, warning 3, info 4, debug 5, trace 6, and their nodes publish that
// number as a slog level.
func agentLevel(l slog.Level) slog.Level {
	switch {
	case l <= 2:
		return slog.LevelError
	case l == 3:
		return slog.LevelWarn
	case l == 4:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}
