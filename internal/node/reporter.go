package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"

	"nex"
	"nex/internal/workload"
)

const (
	// queuedCalls is how many records of function calls may wait to be
	// published.
	queuedCalls = 4096
	// collect is how long they are collected, so that calls that follow each
	// other are not slowed down by their records.
	collect = 20 * time.Millisecond
	// callsPerSecond is how many calls a second are reported one by one in the
	// long run, and callsAtOnce in a burst, of those that succeed and of those
	// that fail: to report all that a busy node answers would cost more than
	// to answer them.
	callsPerSecond, callsAtOnce = 200, 2000
	// tellLost is how often the log says how many records there are not.
	tellLost = 10 * time.Second
	// tellDropped is how often it looks whether to say what was lost while NATS
	// was away.
	tellDropped = time.Second
)

// reporter is the one place that says what happened on a node: an event on
// NATS and a line in the node's log, from the same value.
type reporter struct {
	nc   *nats.Conn
	node string
	log  *slog.Logger

	successes, failures *rate.Limiter
	mu                  sync.Mutex
	calls               []workload.Call // not published yet; guarded by mu
	due                 *time.Timer     // when they are to be
	lost                atomic.Int64    // records dropped since last told
	dropped             atomic.Int64    // events and log records dropped since last told
	told                time.Time       // used by run alone
}

var _ workload.Reporter = (*reporter)(nil)

func newReporter(nc *nats.Conn, node string, log *slog.Logger) *reporter {
	due := time.NewTimer(0)
	due.Stop()
	return &reporter{
		nc: nc, node: node, log: log, due: due,
		successes: rate.NewLimiter(callsPerSecond, callsAtOnce), failures: rate.NewLimiter(callsPerSecond, callsAtOnce),
	}
}

// Event publishes a fact about a workload.
func (r *reporter) Event(namespace, id string, e nex.EventData) {
	level := slog.LevelInfo
	switch e.(type) {
	case nex.WorkloadRestarting, nex.WorkloadLimitHit:
		level = slog.LevelWarn
	}
	r.log.Log(context.Background(), level, title(e), append([]any{"namespace", namespace, "id", id}, fields(e)...)...)
	r.publish(namespace, r.node+"-"+id, e)
}

// system publishes a fact about the node itself.
func (r *reporter) system(e nex.EventData) { r.publish(nex.SystemNamespace, r.node, e) }

// autostartFailed publishes that a workload of the configuration did not start.
func (r *reporter) autostartFailed(namespace string, e nex.AutostartFailed) {
	r.log.Warn(title(e), append([]any{"namespace", namespace}, fields(e)...)...)
	r.publish(namespace, r.node, e)
}

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
	if err != nil && !r.drop(err) {
		r.log.Warn("Event could not be published", "type", data.EventType(), "error", err)
	}
}

// drop counts what there is no room for while NATS is away, and reports whether
// that is why something was not published.
func (r *reporter) drop(err error) bool {
	away := errors.Is(err, nats.ErrReconnectBufExceeded)
	if away {
		r.dropped.Add(1)
	}
	return away
}

// tellDropped says how much was lost, once NATS is back.
func (r *reporter) tellDropped() {
	if !r.nc.IsConnected() {
		return
	}
	if n := r.dropped.Swap(0); n > 0 {
		r.log.Warn("Events and log records were lost while NATS was away", "count", n)
		r.system(nex.ReportsLost{Count: n})
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
	if err != nil && !r.drop(err) {
		r.log.Warn("Log record could not be published", "id", s.ID, "error", err)
	}
}

// Called hands the record of a call to run, which publishes it off the path of
// the call; when there are too many the record is dropped and counted.
func (r *reporter) Called(c workload.Call) {
	limit := r.successes
	if c.Err != nil {
		limit = r.failures
	}
	if !limit.Allow() {
		r.lost.Add(1)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.calls) == queuedCalls {
		r.lost.Add(1)
		return
	}
	if r.calls = append(r.calls, c); len(r.calls) == 1 {
		r.due.Reset(collect)
	}
}

// run publishes call records until ctx ends, and then those that wait.
func (r *reporter) run(ctx context.Context) {
	tell := time.NewTicker(tellDropped)
	defer tell.Stop()
	for last := false; !last; {
		select {
		case <-r.due.C:
		case <-tell.C:
			r.tellDropped()
			continue
		case <-ctx.Done():
			last = true
		}
		r.mu.Lock()
		calls := r.calls
		r.calls = nil
		r.mu.Unlock()
		for _, c := range calls {
			r.called(c)
		}
	}
}

func (r *reporter) called(c workload.Call) {
	if time.Since(r.told) > tellLost {
		if n := r.lost.Swap(0); n > 0 {
			r.log.Warn("Function calls were too many to report each", "unreported", n)
			r.told = time.Now()
		}
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
