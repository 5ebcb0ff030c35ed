package wasm

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"nex"
)

// TestIdleInstancesAreRetired keeps an instance that is used, and closes one
// that is not.
func TestIdleInstancesAreRetired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := Load(t.Context(), Options{Code: command([][]byte{memorySized(1)}), MaxConcurrency: 2, Log: func(slog.Level, string) {}})
		if err != nil {
			t.Fatal(err)
		}
		a, b := mustTake(t, f.pool), mustTake(t, f.pool)
		f.pool.give(a)
		synctest.Wait()
		f.pool.give(b)
		synctest.Wait()
		for range 4 {
			time.Sleep(idleTime / 3)
			synctest.Wait()
			i := mustTake(t, f.pool)
			if i != b {
				t.Fatal("not the one that was used last")
			}
			f.pool.give(i)
			synctest.Wait()
		}
		if !a.module.IsClosed() || b.module.IsClosed() {
			t.Errorf("idle one closed: %v, used one: %v", a.module.IsClosed(), b.module.IsClosed())
		}
		if heldBy(f.pool) != b.size() {
			t.Errorf("%d bytes are held, want %d", heldBy(f.pool), b.size())
		}
		time.Sleep(2 * idleTime)
		synctest.Wait()
		if !b.module.IsClosed() || heldBy(f.pool) != 0 {
			t.Errorf("the last one stays, %d bytes are held", heldBy(f.pool))
		}
		f.pool.give(mustTake(t, f.pool))
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestIdleInstancesAreBounded gives back instances with big memories.
func TestIdleInstancesAreBounded(t *testing.T) {
	f := mustLoad(t, Options{Code: command([][]byte{memorySized(1600)}), MaxConcurrency: 4, Log: func(slog.Level, string) {}}) // 100 MiB
	var all []*instance
	for range 4 {
		all = append(all, mustTake(t, f.pool))
	}
	for _, i := range all {
		f.pool.give(i)
	}
	for range 4 { // until all are back
		f.pool.slots <- struct{}{}
	}
	if n := len(f.pool.idle); n != 2 {
		t.Errorf("%d instances are kept, want 2", n)
	}
	for range 4 {
		<-f.pool.slots
	}
}

func TestTakeAfterClose(t *testing.T) {
	p := newPool(1, func(context.Context) (*instance, error) { panic("no instance is wanted") }, nil)
	p.close(t.Context())
	if _, err := p.take(t.Context()); nex.CodeOf(err) != nex.Unavailable {
		t.Errorf("error %v, want unavailable", err)
	}
}

func heldBy(p *pool) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

func mustTake(t *testing.T, p *pool) *instance {
	t.Helper()
	i, err := p.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return i
}
