package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/workload"
)

// queuedCalls is how many records of function calls may wait to be published.
const queuedCalls = 16 << 10

// reporter is the one place that says what happened on a node: an event on
// NATS and a line in the node's log, from the same value.
type reporter struct {
	nc   *nats.Conn
	node string
	log  *slog.Logger

	calls chan workload.Call
	lost  atomic.Int64 // records dropped since last told
}

var _ workload.Reporter = (*reporter)(nil)

func newReporter(nc *nats.Conn, node string, log *slog.Logger) *reporter {
	return &reporter{nc: nc, node: node, log: log, calls: make(chan workload.Call, queuedCalls)}
}

// Event publishes a fact about a workload.
func (r *reporter) Event(namespace, id string, e nex.EventData) {
	level := slog.LevelInfo
	if _, again := e.(nex.WorkloadRestarting); again {
		level = slog.LevelWarn
	}
	r.log.Log(context.Background(), level, title(e), append([]any{"namespace", namespace, "id", id}, fields(e)...)...)
	r.publish(namespace, r.node+"-"+id, e)
}

// system publishes a fact about the node itself.
func (r *reporter) system(e nex.EventData) { r.publish(nex.SystemNamespace, r.node, e) }

// fields are an event's data as the log shows them.
func fields(e nex.EventData) []any {
	var data map[string]any
	body, err := json.Marshal(e)
	if err == nil {
		err = json.Unmarshal(body, &data)
	}
	if err != nil {
		return []any{"data", err}
	}
	args := make([]any, 0, 2*len(data))
	for _, key := range slices.Sorted(maps.Keys(data)) {
		args = append(args, key, data[key])
	}
	return args
}

// title makes a log message of an event's type: "workload_deployed" becomes
// "Workload deployed".
func title(e nex.EventData) string {
	t := strings.ReplaceAll(e.EventType(), "_", " ")
	return strings.ToUpper(t[:1]) + t[1:]
}

func (r *reporter) publish(namespace, source string, data nex.EventData) {
	e, err := nex.NewEvent(namespace, source, data)
	if err == nil {
		var body []byte
		if body, err = json.Marshal(e.Event); err == nil {
			err = r.nc.Publish(e.Subject(), body)
		}
	}
	if err != nil {
		r.log.Warn("Event could not be published", "type", data.EventType(), "error", err)
	}
}

// Log publishes what a workload printed.
func (r *reporter) Log(s nex.LogSubject, level slog.Level, text string) {
	r.record(s, nex.LogRecord{Text: text, Level: level, ID: s.ID})
}

func (r *reporter) record(s nex.LogSubject, l nex.LogRecord) {
	body, err := json.Marshal(l)
	if err == nil {
		err = r.nc.Publish(s.String(), body)
	}
	if err != nil {
		r.log.Warn("Log record could not be published", "id", s.ID, "error", err)
	}
}

// Called hands the record of a call to run, which publishes it off the path of
// the call; when too many wait the record is dropped and counted.
func (r *reporter) Called(c workload.Call) {
	select {
	case r.calls <- c:
	default:
		r.lost.Add(1)
	}
}

// run publishes call records until ctx ends, then those that wait.
func (r *reporter) run(ctx context.Context) {
	for {
		select {
		case c := <-r.calls:
			r.called(c)
			continue
		case <-ctx.Done():
		}
		select {
		case c := <-r.calls:
			r.called(c)
		default:
			return
		}
	}
}

func (r *reporter) called(c workload.Call) {
	if n := r.lost.Swap(0); n > 0 {
		r.log.Warn("Records of function calls were dropped", "count", n)
	}
	subject := nex.LogSubject{Namespace: c.Namespace, Node: r.node, Workload: c.Name, ID: c.ID}
	if c.Err != nil {
		r.log.Debug("Function failed", "namespace", c.Namespace, "name", c.Name, "id", c.ID, "error", c.Err)
		r.publish(c.Namespace, r.node, nex.FunctionFailed{
			Name: c.Name, Trigger: c.Trigger, Namespace: c.Namespace, Error: c.Err.Error(), Code: nex.CodeOf(c.Err),
		})
		// The text is that of Nex 0.2.7, which has no place for the cause.
		r.record(subject, nex.LogRecord{Text: "Function execution failed", Level: slog.LevelError, ID: c.ID, Error: c.Err.Error()})
		return
	}
	r.publish(c.Namespace, r.node, nex.FunctionSucceeded{
		Name: c.Name, Trigger: c.Trigger, Namespace: c.Namespace, ElapsedNanos: c.Elapsed.Nanoseconds(),
	})
	r.Log(subject, slog.LevelDebug, fmt.Sprintf("Function %s execution succeeded (%dns)", c.Name, c.Elapsed.Nanoseconds()))
}
