package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nex"
)

// The bucket that files deployed from a developer's machine go through.
const (
	devBucket          = "NEXCLIFILES"
	devBucketText      = "Ad hoc object storage for NEX CLI developer mode uploads"
	defaultBucketBytes = 100 << 20
	// bucketFull is JetStream's code for a stream at its limit of bytes.
	bucketFull jetstream.ErrorCode = 10077
)

// upload puts the file into the developers' bucket.
func (d *deployer) upload(ctx context.Context, f source) (nex.Location, error) {
	js, err := d.jetStream(d.nc)
	if err != nil {
		return nex.Location{}, err
	}
	bucket, err := d.bucket(ctx, js)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, nats.ErrNoResponders):
		return nex.Location{}, fmt.Errorf("open upload bucket %s: %w (uploads need JetStream: nats-server -js)", devBucket, err)
	case errors.Is(err, context.DeadlineExceeded):
		return nex.Location{}, fmt.Errorf("open upload bucket %s: %w (if it is not there, who may has to make it: nats object add %s)", devBucket, err, devBucket)
	case err != nil:
		return nex.Location{}, fmt.Errorf("open upload bucket %s: %w", devBucket, err)
	}
	ctx, cancel := d.within(ctx, deployWait)
	defer cancel()
	body, done := d.meter(f)
	_, err = bucket.Put(ctx, jetstream.ObjectMeta{Name: f.key}, body)
	done()
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == bucketFull {
		return nex.Location{}, fmt.Errorf("upload %s: bucket %s has no room for %d bytes: remove objects (nats object rm %s) or enlarge its stream (nats stream edit OBJ_%s --max-bytes)", f.path, devBucket, len(f.data), devBucket, devBucket)
	}
	if err != nil {
		return nex.Location{}, fmt.Errorf("upload %s to bucket %s: %w", f.path, devBucket, err)
	}
	return nex.ParseLocation("nats://" + devBucket + "/" + f.key)
}

// bucket opens the developers' bucket, or makes it.
func (d *deployer) bucket(ctx context.Context, js jetstream.JetStream) (jetstream.ObjectStore, error) {
	ctx, cancel := d.within(ctx, 0)
	defer cancel()
	bucket, err := js.ObjectStore(ctx, devBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{
			Bucket: devBucket, Description: devBucketText, Storage: jetstream.FileStorage, MaxBytes: d.bucketMaxBytes,
		})
	}
	return bucket, err
}

// jetStream opens JetStream in the domain of --jsdomain.
func (c *cli) jetStream(nc *nats.Conn) (js jetstream.JetStream, err error) {
	if c.conn.jsDomain != "" {
		js, err = jetstream.NewWithDomain(nc, c.conn.jsDomain)
	} else {
		js, err = jetstream.New(nc)
	}
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return js, nil
}

// meter shows a progress bar on a terminal while the returned reader is read.
func (c *cli) meter(f source) (body io.Reader, done func()) {
	if !isTerminal(c.stderr) || c.json {
		return bytes.NewReader(f.data), func() {}
	}
	bar := progress.NewWriter()
	bar.SetOutputWriter(c.stderr)
	bar.SetUpdateFrequency(50 * time.Millisecond)
	bar.SetStyle(progress.StyleBlocks)
	bar.SetTrackerLength(30)
	bar.SetAutoStop(false)
	t := &progress.Tracker{Message: "Uploading " + f.key, Total: int64(len(f.data)), Units: progress.UnitsBytes}
	bar.AppendTracker(t)
	ended := make(chan struct{})
	go func() { bar.Render(); close(ended) }()
	return io.TeeReader(bytes.NewReader(f.data), counter{t}), func() {
		t.MarkAsDone()
		bar.Stop()
		<-ended
	}
}

// counter moves a progress bar by what is written to it.
type counter struct{ t *progress.Tracker }

func (c counter) Write(p []byte) (int, error) {
	c.t.Increment(int64(len(p)))
	return len(p), nil
}
