package js

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	goruntime "runtime"
	"slices"
	"time"

	"nex"
	"nex/internal/runtime"
)

// LoadTimeout bounds the evaluation of a script in [Load] when the context
// does not bound it sooner.
const LoadTimeout = 10 * time.Second

// minConcurrency is the number of isolates a function may have on machines
// with few processors: code waits for more than the processor, as in host calls
// without a promise.
const minConcurrency = 4

// Options describe a function to load.
type Options struct {
	Name string // file name shown in errors; "function.js" when empty
	Code []byte // the script or module

	Env       map[string]string // shown to the code as ctx.env
	Namespace string            // shown as ctx.namespace
	Workload  string            // shown as ctx.workload
	ID        string            // shown as ctx.id

	MemoryLimit    int64 // bytes per isolate; 0 means runtime.DefaultMemory
	MaxConcurrency int   // isolates, so calls whose code runs at once; 0 means a few per machine

	Log  runtime.Log  // required: takes what the code prints and throws
	Host runtime.Host // the host services; nil if there are none
}

// Function is a loaded script that answers triggers. Safe for concurrent use.
type Function struct {
	log    runtime.Log
	memory int64
	pool   *pool
}

var _ runtime.Function = (*Function)(nil)

// Load evaluates the script of o in one isolate of e and returns the function
// it evaluated to. A script that does not parse, throws or is no function is
// refused as Invalid, with one line that says where; one that passes ctx's
// deadline or [LoadTimeout] is a Timeout, one that passes its memory limit is
// OutOfMemory.
func Load(ctx context.Context, e Engine, o Options) (*Function, error) {
	src, err := o.source()
	if err != nil {
		return nil, err
	}
	limit := o.MaxConcurrency
	if limit == 0 {
		limit = max(minConcurrency, goruntime.NumCPU())
	}
	f := &Function{log: o.Log, memory: src.Memory}
	f.pool = newPool(limit, func(ctx context.Context, wake func(int)) (Isolate, error) {
		src := src
		src.Wake = wake
		return e.New(ctx, src)
	})

	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, LoadTimeout)
	defer cancel()
	if err := f.warm(ctx); err != nil {
		return nil, f.refusal(src.Name, start, err)
	}
	return f, nil
}

// source checks o and puts it in the form engines take.
func (o Options) source() (Source, error) {
	switch {
	case o.Log == nil:
		return Source{}, errors.New("js options: Log is missing")
	case o.MemoryLimit < 0:
		return Source{}, nex.Errorf(nex.Invalid, "memory limit %d is negative", o.MemoryLimit)
	case o.MaxConcurrency < 0:
		return Source{}, nex.Errorf(nex.Invalid, "concurrency limit %d is negative", o.MaxConcurrency)
	}
	env := o.Env
	if env == nil {
		env = map[string]string{}
	}
	info, err := json.Marshal(struct {
		Env       map[string]string `json:"env"`
		Namespace string            `json:"namespace"`
		Workload  string            `json:"workload"`
		ID        string            `json:"id"`
	}{env, o.Namespace, o.Workload, o.ID})
	if err != nil {
		return Source{}, fmt.Errorf("encode what the code may know: %w", err)
	}
	s := Source{Name: o.Name, Code: slices.Clone(o.Code), Info: string(info), Memory: o.MemoryLimit, Host: o.Host}
	if s.Name == "" {
		s.Name = "function.js"
	}
	if s.Memory == 0 {
		s.Memory = runtime.DefaultMemory
	}
	s.Print = func(level int, text string) { o.Log(slog.Level(level), clip(text)) }
	return s, nil
}

// warm makes the first isolate, so that what is wrong with the script shows
// before the first call.
func (f *Function) warm(ctx context.Context) (err error) {
	defer recoverInto(&err)
	r, err := f.pool.take(ctx)
	if err != nil {
		return err
	}
	r.give(Step{}, nil)
	return nil
}

// Invoke implements [runtime.Function]. A call that finds code running in all
// isolates until its context ends is Overloaded; one that waits in an isolate
// that another call spoils is Unavailable.
func (f *Function) Invoke(ctx context.Context, t runtime.Trigger) (runtime.Reply, error) {
	start := time.Now()
	reply, err := f.invoke(ctx, t)
	if err != nil {
		return runtime.Reply{}, f.failure(ctx, start, err)
	}
	return reply, nil
}

func (f *Function) invoke(ctx context.Context, t runtime.Trigger) (reply runtime.Reply, err error) {
	defer recoverInto(&err)
	c, err := newCall(ctx, t)
	if err != nil {
		return runtime.Reply{}, err
	}
	r, err := f.pool.take(ctx)
	if err != nil {
		return runtime.Reply{}, err
	}
	return r.run(ctx, c)
}

func newCall(ctx context.Context, t runtime.Trigger) (Call, error) {
	c := Call{Subject: t.Subject, Reply: t.Reply, Deadline: math.Inf(1), Payload: t.Payload}
	if d, ok := ctx.Deadline(); ok {
		c.Deadline = float64(d.UnixMilli())
	}
	if len(t.Header) > 0 {
		header, err := json.Marshal(t.Header)
		if err != nil {
			return Call{}, fmt.Errorf("encode the headers: %w", err)
		}
		c.Header = string(header)
	}
	return c, nil
}

// Close implements [runtime.Function]. It is idempotent.
func (f *Function) Close(ctx context.Context) error { return f.pool.close(ctx) }
