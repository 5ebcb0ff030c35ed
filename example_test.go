package nex_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"nex"
)

// A client finds the nodes that could run a workload.
func ExampleClient() {
	nc, stop := startNATS()
	defer stop()

	client, err := nex.NewClient(nc, "default")
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for node, err := range client.Auction(ctx, nex.AuctionRequest{WorkloadTypes: []nex.WorkloadType{nex.Wasm}}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s has been up for %s\n", node.NodeID, node.Uptime)
	}
	// Output: NODE1 has been up for 1m7s
}

// startNATS runs a NATS server with a node that answers auctions, as a stand-in
// for a real one.
func startNATS() (nc *nats.Conn, stop func()) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		log.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		log.Fatal("the NATS server did not start")
	}
	nc, err = nats.Connect(s.ClientURL())
	if err != nil {
		log.Fatal(err)
	}
	_, err = nc.Subscribe(nex.AuctionSubject, func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"type":"io.nats.nex.v1.auction_response","data":{"node_id":"NODE1","uptime":"1m7s"}}`))
	})
	if err != nil {
		log.Fatal(err)
	}
	return nc, func() { nc.Close(); s.Shutdown(); s.WaitForShutdown() }
}
