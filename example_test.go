package nex_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"nex"
)

// A client finds the nodes that would run a workload.
func ExampleClient_Auction() {
	client, stop := startNode()
	defer stop()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for bid, err := range client.Auction(ctx, nex.AuctionRequest{WorkloadTypes: []nex.WorkloadType{nex.Wasm}}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s has been up for %s\n", bid.Name(), bid.Uptime)
	}
	// Output: kitchen has been up for 1m7s
}

// The nodes of a cluster, or the first few of them, answer a ping.
func ExampleClient_Nodes() {
	client, stop := startNode()
	defer stop()

	for node, err := range client.Nodes(context.Background(), nex.NodeFilter{Count: 1}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(node.Name(), node.RunningMachines)
	}
	// Output: kitchen 1
}

// Deploying takes keys to sign and seal with, and the node that is to run the
// workload.
func ExampleClient_Deploy() {
	client, stop := startNode()
	defer stop()

	issuer, err := nkeys.CreateAccount()
	if err != nil {
		log.Fatal(err)
	}
	sender, err := nkeys.CreateCurveKeys()
	if err != nil {
		log.Fatal(err)
	}
	keys := nex.Keys{Issuer: issuer, Sender: sender}
	location, err := nex.ParseLocation("nats://MYBUCKET/echo.js")
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	node, err := client.Ping(ctx, nodeID)
	if err != nil {
		log.Fatal(err)
	}
	target := nex.Target{Namespace: client.Namespace(), Node: node.NodeID, Xkey: node.TargetXkey}
	request, err := keys.Deploy(nex.Workload{
		Name: "echo", Type: nex.V8, Location: location, TriggerSubjects: []string{"js.echo"},
		Environment: map[string]string{"GREETING": "hello"},
	}, target)
	if err != nil {
		log.Fatal(err)
	}
	reply, err := client.Deploy(ctx, node.NodeID, request)
	switch {
	case nex.CodeOf(err) == nex.Exhausted:
		fmt.Println("try another node")
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println(reply.Name, "is", reply.ID)
	}
	// Output: try another node
}

// A node tells about itself and the workloads of one namespace.
func ExampleClient_Info() {
	client, stop := startNode()
	defer stop()

	info, err := client.Info(context.Background(), nodeID)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range info.Machines {
		fmt.Println(m.ID, m.Workload.Name, m.Workload.Type, m.Healthy)
	}
	// Output: cq1a2b3c4d5e6f7g8h90 echofn v8 true
}

// Events and logs are streams without an end: leave the loop, or end the
// context.
func ExampleClient_Events() {
	client, stop := startNode()
	defer stop()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for e, err := range client.Events(ctx, nex.SystemNamespace, "*") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Type())
		break
	}
	// Output: heartbeat
}

// nodeID is the node of the examples.
const nodeID = "NDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDIX"

// startNode runs a NATS server with a stand-in for a node, which is full, and
// returns a client for it.
func startNode() (client *nex.Client, stop func()) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		log.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		log.Fatal("the NATS server did not start")
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		log.Fatal(err)
	}
	const self = `{"data":{"node_id":"` + nodeID + `","uptime":"1m7s","running_machines":1,"tags":{"node_name":"kitchen"},` +
		`"target_xkey":"XBIKMFAJWHO5AMS6TMLLOAHHDHUXOLAHAAFRXV3YN2IHYZJ5EBEV3OGD"}}`
	for subject, reply := range map[string]string{
		nex.PingSubject: self, nex.NodePingSubject(nodeID): self, nex.AuctionSubject: self,
		nex.DeploySubject("*", nodeID): `{"data":"","error":"Node is at maximum workload limit. Deploy request denied","code":"exhausted"}`,
		nex.InfoSubject("*", nodeID):   `{"data":{"machines":[{"id":"cq1a2b3c4d5e6f7g8h90","healthy":true,"workload":{"name":"echofn","type":"v8"}}]}}`,
	} {
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond([]byte(reply)) }); err != nil {
			log.Fatal(err)
		}
	}
	beating, beats := make(chan struct{}), sync.WaitGroup{}
	beats.Go(func() { beat(nc, beating) })
	if client, err = nex.NewClient(nc, "default"); err != nil {
		log.Fatal(err)
	}
	return client, func() {
		close(beating)
		beats.Wait()
		nc.Close()
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// beat publishes heartbeats, faster than real nodes do.
func beat(nc *nats.Conn, end <-chan struct{}) {
	e, err := nex.NewEvent(nex.SystemNamespace, nodeID, nex.Heartbeat{NodeID: nodeID})
	if err != nil {
		log.Fatal(err)
	}
	body, err := json.Marshal(e.Event)
	if err != nil {
		log.Fatal(err)
	}
	every := time.NewTicker(10 * time.Millisecond)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			_ = nc.Publish(e.Subject(), body)
		case <-end:
			return
		}
	}
}
