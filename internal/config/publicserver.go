package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// loopback is where servers listen whose file names no address.
const loopback = "127.0.0.1"

// PublicServer is a NATS server that runs in the node's process: the options
// of nats-server that its JSON form has, and the directory of its streams.
type PublicServer struct{ server.Options }

// UnmarshalJSON implements [json.Unmarshaler]. Options that nats-server does
// not have are an error.
func (p *PublicServer) UnmarshalJSON(data []byte) error {
	options := struct {
		*server.Options
		StoreDir string `json:"store_dir"` // server.Options has it, but not in JSON
	}{Options: &p.Options}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var wrong *json.UnmarshalTypeError
	switch err := dec.Decode(&options); {
	case errors.As(err, &wrong):
		return fmt.Errorf("%s cannot be a %s", strings.TrimPrefix(wrong.Field, "Options."), wrong.Value)
	case err != nil:
		return err
	case p.DontListen:
		return errors.New("dont_listen: nobody could reach the server")
	}
	p.StoreDir = options.StoreDir
	for _, host := range []*string{&p.Host, &p.Cluster.Host, &p.Gateway.Host, &p.LeafNode.Host} {
		if *host == "" {
			*host = loopback
		}
	}
	return nil
}

// String says where the server listens.
func (p *PublicServer) String() string { return net.JoinHostPort(p.Host, strconv.Itoa(p.Port)) }
