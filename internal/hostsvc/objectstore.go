package hostsvc

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nex"
	"nex/internal/guest"
)

const (
	// chunkSize is how long the pieces of objects are, in bytes.
	chunkSize = 128 << 10
	// maxChunks is how many pieces are on their way at a time.
	maxChunks = 32
	// purgeTimeout bounds the removal of pieces that no object has any more.
	purgeTimeout = 2 * time.Second
	// pieceTimeout is how long the next piece of an object is waited for until
	// it is asked whether that is still there: pieces of one that was put again
	// never come.
	pieceTimeout = 250 * time.Millisecond
)

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
		answer.Payload, err = c.readObject(ctx, o, name)
		return err
	})
	return answer, err
}

// readObject reads an object, and once more if it was put again meanwhile, as
// that takes away the pieces of before.
func (c *call) readObject(ctx context.Context, o *objects, name string) ([]byte, error) {
	info, err := o.info(ctx, name)
	for {
		if err != nil {
			return nil, err
		}
		if info.Size > maxAnswer {
			return nil, nex.Errorf(nex.TooLarge, "the object has %d bytes, the most that can be read are %d", info.Size, maxAnswer)
		}
		if err := c.hold(int(info.Size)); err != nil {
			return nil, err
		}
		data, broken := o.read(ctx, info)
		if !errors.Is(broken, errBroken) {
			return data, broken
		}
		c.letGo(int(info.Size))
		before := info.NUID
		if info, err = o.info(ctx, name); err == nil && info.NUID == before {
			return nil, errBroken
		}
	}
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
	if n, err := sub.InitialConsumerPending(); err != nil || n == 0 {
		return nil, cmp.Or(err, error(errBroken))
	}
	data := make([]byte, 0, info.Size)
	for uint64(len(data)) < info.Size {
		m, err := next(ctx, sub, time.Now().Add(pieceTimeout))
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			if now, err := o.info(ctx, info.Name); err == nil && now.NUID == info.NUID {
				continue // it only takes long
			}
			err = errBroken
		}
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
	err = with(ctx, c.Session, c.objects, func(o *objects) error {
		info, err := o.put(ctx, name, c.Payload)
		if err != nil {
			return err
		}
		answer.Payload, err = json.Marshal(info)
		return err
	})
	return answer, err
}

// put stores an object. Its description is written when all its pieces are
// stored, so that what fails leaves the object of before; the client's own put
// sends both at once.
func (o *objects) put(ctx context.Context, name string, data []byte) (*jetstream.ObjectInfo, error) {
	before, err := o.GetInfo(ctx, name, jetstream.GetObjectInfoShowDeleted())
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, err
	}
	size := min(chunkSize, int(o.js.Conn().MaxPayload()))
	digest := sha256.New()
	digest.Write(data)
	info := &jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: uint32(size)}},
		Bucket:     o.bucket, NUID: rand.Text(), Size: uint64(len(data)), Chunks: uint32((len(data) + size - 1) / size),
		Digest: jetstream.GetObjectDigestValue(digest),
	}
	if err = o.write(ctx, info.NUID, slices.Chunk(data, size)); err != nil {
		o.purge(ctx, info.NUID)
		return nil, err
	}
	if err = o.describe(ctx, info); err != nil {
		if code, _ := apiError(err); code != 0 { // else it may be there all the same
			o.purge(ctx, info.NUID)
		}
		return nil, err
	}
	if before != nil && !before.Deleted && nex.ValidToken(before.NUID) {
		o.purge(ctx, before.NUID)
	}
	info.ModTime = time.Now().UTC()
	return info, nil
}

// write stores the pieces of an object and waits until they are. If that fails
// it waits until nothing is on its way any more, as far as it can.
func (o *objects) write(ctx context.Context, nuid string, pieces iter.Seq[[]byte]) error {
	nc := o.js.Conn()
	inbox := nc.NewInbox()
	acks, err := nc.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer func() { _ = acks.Unsubscribe() }() // it fails if the connection has ended, and then there is nothing to end
	sent := 0
	for piece := range pieces {
		if sent == maxChunks {
			if err = stored(ctx, acks); err != nil {
				break
			}
			sent--
		}
		if err = nc.PublishMsg(&nats.Msg{Subject: "$O." + o.bucket + ".C." + nuid, Reply: inbox, Data: piece}); err != nil {
			break
		}
		sent++
	}
	for ; sent > 0 && err == nil; sent-- {
		err = stored(ctx, acks)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), purgeTimeout)
		defer cancel()
		for gone := error(nil); sent > 0 && gone == nil; sent-- {
			_, gone = acks.NextMsgWithContext(ctx)
		}
	}
	return err
}

// stored waits until JetStream says that a message is stored.
func stored(ctx context.Context, acks *nats.Subscription) error {
	m, err := acks.NextMsgWithContext(ctx)
	if err != nil {
		return err
	}
	if isNobody(m) {
		return nats.ErrNoResponders
	}
	var ack struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return fmt.Errorf("answer of JetStream: %w", err)
	}
	if ack.Error != nil {
		return ack.Error
	}
	return nil
}

// describe writes the description of an object in place of the one before.
func (o *objects) describe(ctx context.Context, info *jetstream.ObjectInfo) error {
	text, err := json.Marshal(info)
	if err != nil {
		return err
	}
	m := nats.NewMsg(o.metaSubject(info.Name))
	m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	m.Data = text
	_, err = o.js.PublishMsg(ctx, m)
	return err
}

func (o *objects) metaSubject(name string) string {
	return "$O." + o.bucket + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}

// purge removes the pieces that an object had, even if nobody waits for that any
// more. It tries to: pieces that are left take space and do no other harm.
func (o *objects) purge(ctx context.Context, nuid string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), purgeTimeout)
	defer cancel()
	_ = purge(ctx, o.js, "OBJ_"+o.bucket, "$O."+o.bucket+".C."+nuid)
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
		gone := *info
		gone.Deleted, gone.Size, gone.Chunks, gone.Digest, gone.ModTime = true, 0, 0, "", time.Time{}
		err = o.describe(ctx, &gone)
		if isFull(err) { // there is no place even for the mark that it is deleted
			err = purge(ctx, o.js, "OBJ_"+o.bucket, o.metaSubject(name))
		}
		if err == nil {
			o.purge(ctx, info.NUID)
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
