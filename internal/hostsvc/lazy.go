package hostsvc

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/singleflight"
)

// lazy is something that takes long to open and is opened when it is first
// needed, once however many need it at a time.
type lazy[T comparable] struct {
	gate *gate // through which every attempt to open it goes
	open func(context.Context) (T, error)

	value  atomic.Pointer[T]
	flight singleflight.Group
}

// get returns it, opened. Who no longer waits does not end the attempt, for
// which others may be waiting.
func (l *lazy[T]) get(ctx context.Context) (T, error) {
	var none T
	if v, ok := l.opened(); ok {
		return v, nil
	}
	select {
	case r := <-l.flight.DoChan("", l.fill):
		if r.Err != nil {
			return none, r.Err
		}
		return r.Val.(T), nil
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

func (l *lazy[T]) fill() (any, error) {
	if v, ok := l.opened(); ok {
		return v, nil
	}
	ctx, leave, err := l.gate.enter(context.Background())
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	v, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	l.value.Store(&v)
	return v, nil
}

// opened returns it if it is open.
func (l *lazy[T]) opened() (v T, ok bool) {
	if p := l.value.Load(); p != nil {
		return *p, true
	}
	return v, false
}

// drop has it opened anew when it is next needed, unless it is no longer v.
func (l *lazy[T]) drop(v T) {
	if p := l.value.Load(); p != nil && *p == v {
		l.value.CompareAndSwap(p, nil)
	}
}
