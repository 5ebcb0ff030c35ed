package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

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

// deployer brings files from this machine onto a node.
type deployer struct {
	*cli
	client         *nex.Client
	nc             *nats.Conn
	keys           nex.Keys
	replace        bool // stop workloads of the same name
	bucketMaxBytes int64
}

// running is a workload of some name and where it runs.
type running struct {
	id   string
	node nex.NodeInfo
}

// deploy uploads f and runs it on a node that offers to. Functions overlap
// with the copies they replace, so that no message goes unanswered; services
// are stopped first, since two might want the same port. So is a function on a
// node that has room for no other.
func (d *deployer) deploy(ctx context.Context, f source, flags deployFlags) (placement, error) {
	node, old, err := d.choose(ctx, f)
	overlap := f.typ.IsFunction()
	if errors.As(err, new(noBidError)) && d.replace && len(old) > 0 {
		node, overlap, err = old[0].node, false, nil
	}
	if err != nil {
		return placement{}, err
	}
	if len(old) > 0 && !d.replace {
		return placement{}, fmt.Errorf("workload '%s' already runs as %s on node %s: stop it, drop --no-stop, or choose another --name", f.name, old[0].id, old[0].node.NodeID)
	}
	location, err := d.upload(ctx, f)
	if err != nil {
		return placement{}, err
	}
	if !overlap {
		if err := d.stopAll(ctx, f.name, old); err != nil {
			return placement{}, err
		}
	}
	placed, err := d.place(ctx, node, nex.Workload{
		Name: f.name, Type: f.typ, Location: location, SHA256: f.sha256, Description: devDescription,
		Argv: strings.Fields(flags.argv), Environment: flags.env, Essential: flags.essential,
		TriggerSubjects: flags.triggers, FunctionTimeout: flags.timeout, JSDomain: d.conn.jsDomain,
		SourceName: filepath.Base(f.path),
	})
	if err != nil || !overlap {
		return placed, err
	}
	if err := d.stopAll(ctx, f.name, old); err != nil {
		return placement{}, errors.Join(err, d.stop(ctx, f.name, running{placed.ID, node})) // the old one goes on alone
	}
	return placed, nil
}

// choose asks who could run f and who runs something of its name.
func (d *deployer) choose(ctx context.Context, f source) (node nex.NodeInfo, old []running, err error) {
	var noBid error
	g, asking := errgroup.WithContext(ctx)
	g.Go(func() error {
		node, noBid = d.candidate(asking, d.client, f)
		if errors.As(noBid, new(noBidError)) {
			return nil
		}
		return noBid
	})
	g.Go(func() (err error) { old, err = d.find(asking, f.name); return err })
	if err := g.Wait(); err != nil {
		return node, old, err
	}
	return node, old, noBid
}

// find lists the workloads of a name in the namespace, on all nodes. It asks
// each node by itself: those that have none answer too, so nobody is waited
// for in vain.
func (d *deployer) find(ctx context.Context, name string) ([]running, error) {
	ctx, cancel := d.within(ctx, 0)
	defer cancel()
	var found []running
	for n, err := range d.client.Nodes(ctx) {
		if err != nil {
			return nil, err
		}
		info, err := d.client.Info(ctx, n.NodeID)
		if err != nil {
			return nil, fmt.Errorf("look for workload '%s' on node %s: %w", name, n.NodeID, answered(err))
		}
		for _, m := range info.Machines {
			if m.Workload.Name == name {
				found = append(found, running{m.ID, n})
			}
		}
	}
	return found, nil
}

// stopAll stops workloads that are replaced.
func (d *deployer) stopAll(ctx context.Context, name string, old []running) error {
	for _, w := range old {
		if !d.json {
			fmt.Fprintf(d.stdout, "Workload %s (%s) already exists on the target. Attempting to stop it\n", name, w.id)
		}
		if err := d.stop(ctx, name, w); err != nil {
			return err
		}
	}
	return nil
}

// stop ends one workload. One that is gone already is fine.
func (d *deployer) stop(ctx context.Context, name string, w running) error {
	req, err := d.keys.Stop(name, w.id, w.node.NodeID)
	if err != nil {
		return err
	}
	ctx, cancel := d.within(ctx, stopWait)
	defer cancel()
	_, err = d.client.Stop(ctx, w.node.NodeID, req)
	switch nex.CodeOf(err) {
	case "", nex.NotFound:
		return nil
	case nex.Unauthorized:
		return fmt.Errorf("workload '%s' (%s) on node %s cannot be replaced: %w; choose another --name", name, w.id, w.node.NodeID, answered(err))
	}
	return fmt.Errorf("stop workload '%s' (%s) on node %s: %w", name, w.id, w.node.NodeID, answered(err))
}

// place deploys a workload on one node.
func (d *deployer) place(ctx context.Context, node nex.NodeInfo, w nex.Workload) (placement, error) {
	req, err := d.keys.Deploy(w, node.NodeID, node.TargetXkey)
	if err != nil {
		return placement{}, err
	}
	ctx, cancel := d.within(ctx, deployWait)
	defer cancel()
	defer d.notice("Waiting for the node to fetch and start the workload…")()
	reply, err := d.client.Deploy(ctx, node.NodeID, req)
	if err != nil {
		return placement{}, fmt.Errorf("⛔ Workload run request failed to submit: %w", answered(err))
	}
	if !reply.Started {
		return placement{}, refusedError{errors.New("⛔ Workload rejected")}
	}
	return placement{DeployReply: reply, Node: node.NodeID}, nil
}

// upload puts the file into the developers' bucket.
func (d *deployer) upload(ctx context.Context, f source) (nex.Location, error) {
	js, err := d.jetStream()
	if err != nil {
		return nex.Location{}, err
	}
	bucket, err := d.bucket(ctx, js)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, nats.ErrNoResponders):
		return nex.Location{}, fmt.Errorf("open upload bucket %s: %w (uploads need JetStream: nats-server -js)", devBucket, err)
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

func (d *deployer) jetStream() (js jetstream.JetStream, err error) {
	if d.conn.jsDomain != "" {
		js, err = jetstream.NewWithDomain(d.nc, d.conn.jsDomain)
	} else {
		js, err = jetstream.New(d.nc)
	}
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return js, nil
}

// digest asks the Object Store for the SHA-256 of an artifact, so that the
// node runs what is there now and nothing else.
func (d *deployer) digest(ctx context.Context, l nex.Location) (string, error) {
	ctx, cancel := d.within(ctx, 0)
	defer cancel()
	js, err := d.jetStream()
	if err != nil {
		return "", err
	}
	bucket, err := js.ObjectStore(ctx, l.Bucket())
	if err != nil {
		return "", fmt.Errorf("open bucket %s: %w", l.Bucket(), err)
	}
	info, err := bucket.GetInfo(ctx, l.Key())
	if err != nil {
		return "", fmt.Errorf("find %s in bucket %s: %w", l.Key(), l.Bucket(), err)
	}
	return nex.ObjectDigest(info.Digest), nil
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
