package hostsvc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nex"
	"nex/internal/guest"
)

// putGrace is how long an object whose call was given up may still take to be
// stored. One that is abandoned halfway leaves its pieces in the bucket.
const putGrace = 2 * time.Second

// objects is an open object store.
type objects struct {
	jetstream.ObjectStore
	js     jetstream.JetStream
	chunks nats.JetStreamContext
	bucket string
}

// object returns the name of the object that a call is about.
func (c *call) object() (string, error) {
	name := c.Args["name"]
	switch {
	case name == "":
		return "", nex.Errorf(nex.Invalid, "name is required")
	case len(name) > maxName || !utf8.ValidString(name):
		return "", nex.Errorf(nex.Invalid, "the name must be UTF-8 and have at most %d bytes", maxName)
	}
	return name, nil
}

func objectGet(ctx context.Context, c *call) (answer guest.Message, err error) {
	name, err := c.object()
	if err != nil {
		return answer, err
	}
	err = with(ctx, c.Session, c.objects, func(o *objects) error {
		info, err := o.info(ctx, name)
		if err != nil {
			return err
		}
		if info.Size > maxAnswer {
			return nex.Errorf(nex.TooLarge, "the object has %d bytes, the most that can be read are %d", info.Size, maxAnswer)
		}
		if err := c.hold(int(info.Size)); err != nil {
			return err
		}
		answer.Payload, err = o.read(ctx, info)
		return err
	})
	return answer, err
}

var errNoObject = nex.Errorf(nex.NotFound, "object not found")

// info describes an object of this bucket. Links, which only others can have
// put there, are not followed: they lead to buckets of other tenants.
func (o *objects) info(ctx context.Context, name string) (*jetstream.ObjectInfo, error) {
	info, err := o.GetInfo(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrObjectNotFound):
		return nil, errNoObject
	case err != nil:
		return nil, err
	case info.Opts != nil && info.Opts.Link != nil:
		return nil, nex.Errorf(nex.Denied, "the object %.64q is a link, which are not followed", name)
	case !nex.ValidToken(info.NUID):
		return nil, errBroken
	}
	return info, nil
}

var errBroken = nex.Errorf(nex.Unavailable, "the object is not as it was when it was put: put it again")

// read returns what is in an object. The client's own way of reading one cannot
// be interrupted.
func (o *objects) read(ctx context.Context, info *jetstream.ObjectInfo) ([]byte, error) {
	if info.Size == 0 {
		return nil, nil
	}
	sub, err := o.chunks.SubscribeSync("$O."+o.bucket+".C."+info.NUID,
		nats.OrderedConsumer(), nats.BindStream("OBJ_"+o.bucket), nats.Context(ctx))
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails if the connection has ended, and then there is nothing to end
	data := make([]byte, 0, info.Size)
	for uint64(len(data)) < info.Size {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, err
		}
		if uint64(len(data)+len(m.Data)) > info.Size || len(m.Data) == 0 {
			return nil, errBroken
		}
		data = append(data, m.Data...)
		if about, err := m.Metadata(); err != nil || about.NumPending == 0 {
			break
		}
	}
	digest := sha256.New()
	digest.Write(data)
	if uint64(len(data)) != info.Size || jetstream.GetObjectDigestValue(digest) != info.Digest {
		return nil, errBroken
	}
	return data, nil
}

func objectPut(ctx context.Context, c *call) (answer guest.Message, err error) {
	name, err := c.object()
	if err != nil {
		return answer, err
	}
	ctx, cancel := later(ctx, putGrace)
	defer cancel()
	err = with(ctx, c.Session, c.objects, func(o *objects) error {
		info, err := o.Put(ctx, jetstream.ObjectMeta{Name: name}, bytes.NewReader(c.Payload))
		if err != nil {
			return err
		}
		answer.Payload, err = json.Marshal(info)
		return err
	})
	return answer, err
}

// later returns a context that ends some time after ctx does.
func later(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	outer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return outer, func() { stop(); cancel() }
}

func objectDelete(ctx context.Context, c *call) (guest.Message, error) {
	name, err := c.object()
	if err != nil {
		return guest.Message{}, err
	}
	return guest.Message{}, with(ctx, c.Session, c.objects, func(o *objects) error {
		info, err := o.info(ctx, name)
		if err != nil {
			return err
		}
		err = o.Delete(ctx, name)
		if isFull(err) { // there is no place even for the mark that it is deleted
			if err = c.purge(ctx, "OBJ_"+o.bucket, "$O."+o.bucket+".C."+info.NUID); err == nil {
				err = o.Delete(ctx, name)
			}
		}
		return err
	})
}

func objectList(ctx context.Context, c *call) (answer guest.Message, err error) {
	err = with(ctx, c.Session, c.objects, func(o *objects) error {
		answer.Payload, err = c.listObjects(ctx, o)
		return err
	})
	return answer, err
}

func (c *call) listObjects(ctx context.Context, o *objects) ([]byte, error) {
	w, err := o.Watch(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, err
	}
	defer drain(w.Stop, w.Updates())
	list := []byte("[")
	for {
		select {
		case info, ok := <-w.Updates():
			if !ok {
				return nil, errInterrupted
			}
			if info == nil { // those were all
				return append(bytes.TrimSuffix(list, []byte(",")), ']'), nil
			}
			text, err := json.Marshal(info)
			if err != nil {
				return nil, err
			}
			if len(list)+len(text) > maxAnswer {
				return nil, errLongList
			}
			if err := c.hold(len(text)); err != nil {
				return nil, err
			}
			list = append(append(list, text...), ',')
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
