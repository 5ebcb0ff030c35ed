package hostsvc

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"nex"
)

// An object whose pieces are gone is said to be broken, and not waited for.
func TestObjectsWithoutPieces(t *testing.T) {
	r := newRig(t, Config{})
	s := r.open(t, "n", "w")
	do(t, s, "objectstore.put", args("name", "a"), allBytes(1<<20))
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := purge(t.Context(), js, "OBJ_hs_n_w_obj", "$O.hs_n_w_obj.C.>"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := ask(ctx, s, "objectstore.get", args("name", "a"), nil); nex.CodeOf(err) != nex.Unavailable {
		t.Errorf("%v", err)
	}
}

// Who reads an object while it is put again gets the one or the other.
func TestObjectsThatAreReplacedMeanwhile(t *testing.T) {
	r := newRig(t, Config{})
	s := r.open(t, "n", "w")
	put := func() error {
		_, err := ask(t.Context(), s, "objectstore.put", args("name", "a"), allBytes(1<<20))
		return err
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		var err error
		for range 15 {
			if err == nil {
				err = put()
			}
		}
		done <- err
	}()
	for reads := 0; ; reads++ {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := ask(ctx, s, "objectstore.get", args("name", "a"), nil)
		cancel()
		if err != nil {
			t.Errorf("read %d: %v", reads, err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}
