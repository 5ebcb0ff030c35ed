package hostsvc

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"nex"
	"nex/internal/guest"
)

// maxName is the longest name of a key or an object, in bytes: it is in the
// subject of a message, and NATS ends connections that send longer lines.
const maxName = 1024

var keyName = regexp.MustCompile(`^[-/_=.a-zA-Z0-9]+$`)

// key returns the key that a call is about.
func (c *call) key() (string, error) {
	key := c.Args["key"]
	switch {
	case key == "":
		return "", nex.Errorf(nex.Invalid, "key is required")
	case len(key) > maxName:
		return "", nex.Errorf(nex.Invalid, "the key has %d characters, the most are %d", len(key), maxName)
	case !keyName.MatchString(key) || key[0] == '.' || key[len(key)-1] == '.' || strings.Contains(key, ".."):
		return "", nex.Errorf(nex.Invalid, "the key %.64q has other characters than letters, digits and -/_=. or a dot at an end or beside another", key)
	}
	return key, nil
}

func kvGet(ctx context.Context, c *call) (answer guest.Message, err error) {
	key, err := c.key()
	if err != nil {
		return answer, err
	}
	err = with(ctx, c.Session, c.keys, func(kv jetstream.KeyValue) error {
		entry, err := kv.Get(ctx, key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return nex.Errorf(nex.NotFound, "key not found")
		}
		if err != nil {
			return err
		}
		answer = guest.Message{Args: revision(entry.Revision()), Payload: entry.Value()}
		return nil
	})
	return answer, err
}

func kvSet(ctx context.Context, c *call) (answer guest.Message, err error) {
	key, err := c.key()
	if err != nil {
		return answer, err
	}
	err = with(ctx, c.Session, c.keys, func(kv jetstream.KeyValue) error {
		n, err := kv.Put(ctx, key, c.Payload)
		answer.Args = revision(n)
		return err
	})
	return answer, err
}

func revision(n uint64) map[string]string {
	return map[string]string{"revision": strconv.FormatUint(n, 10)}
}

func kvDelete(ctx context.Context, c *call) (guest.Message, error) {
	key, err := c.key()
	if err != nil {
		return guest.Message{}, err
	}
	return guest.Message{}, with(ctx, c.Session, c.keys, func(kv jetstream.KeyValue) error {
		err := kv.Delete(ctx, key)
		if isFull(err) { // there is no place even for the mark that the key is deleted
			js, err := c.jetStream(ctx)
			if err != nil {
				return err
			}
			return purge(ctx, js, "KV_"+kv.Bucket(), "$KV."+kv.Bucket()+"."+key)
		}
		return err
	})
}

// purge removes the messages of a subject from a stream.
func purge(ctx context.Context, js jetstream.JetStream, stream, subject string) error {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return err
	}
	return s.Purge(ctx, jetstream.WithPurgeSubject(subject))
}

func kvKeys(ctx context.Context, c *call) (answer guest.Message, err error) {
	err = with(ctx, c.Session, c.keys, func(kv jetstream.KeyValue) error {
		keys, err := c.listKeys(ctx, kv)
		if err != nil {
			return err
		}
		answer.Payload, err = json.Marshal(keys)
		return err
	})
	return answer, err
}

func (c *call) listKeys(ctx context.Context, kv jetstream.KeyValue) ([]string, error) {
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes(), jetstream.MetaOnly())
	if err != nil {
		return nil, err
	}
	defer drain(w.Stop, w.Updates())
	keys := []string{} // which JSON has as a list even if it is empty
	left := maxAnswer
	for {
		select {
		case entry, ok := <-w.Updates():
			if !ok {
				return nil, errInterrupted
			}
			if entry == nil { // those were all
				slices.Sort(keys)
				return slices.Compact(keys), nil // one that changes meanwhile is told of twice
			}
			size := len(entry.Key()) + len(`"",`)
			if left -= size; left < 0 {
				return nil, errLongList
			}
			if err := c.hold(size); err != nil {
				return nil, err
			}
			keys = append(keys, entry.Key())
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

var (
	errLongList    = nex.Errorf(nex.TooLarge, "the list is longer than %d bytes", maxAnswer)
	errInterrupted = nex.Errorf(nex.Unavailable, "the connection to NATS ended meanwhile")
)

// drainTimeout bounds drain. The client does not say that a watch has ended if
// its connection did just when the watch began.
const drainTimeout = 2 * time.Second

// drain ends a watch. What it has still to tell is taken from it, or the
// goroutine that would tell it never ended.
func drain[T any](stop func() error, updates <-chan T) {
	_ = stop() // it fails if the connection has ended, and the watch with it
	timeout := time.After(drainTimeout)
	for {
		select {
		case _, ok := <-updates:
			if !ok {
				return
			}
		case <-timeout:
			return
		}
	}
}
