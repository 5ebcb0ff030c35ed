// Command visits is a Nex function in Go that uses a host service: it counts in
// the workload's key-value bucket how often it got each payload.
//
//	GOOS=wasip1 GOARCH=wasm go build -o visits.wasm ./examples/wasm/visits
//
// Messages that come at once may be counted as one.
package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"

	"nex/examples/wasm/nexhost"
)

func main() {
	if err := answer(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "visits:", err)
		os.Exit(1)
	}
}

func answer(payload io.Reader, reply io.Writer) error {
	name, err := io.ReadAll(payload)
	if err != nil {
		return err
	}
	var kv nexhost.KV
	key := "visits-" + hex.EncodeToString(name) // a key has no spaces
	visits := 0
	switch value, err := kv.Get(key); {
	case nexhost.CodeOf(err) == "not_found": // the first
	case err != nil:
		return fmt.Errorf("read the count: %w", err)
	default:
		if visits, err = strconv.Atoi(string(value)); err != nil {
			return fmt.Errorf("read the count: %w", err)
		}
	}
	visits++
	if _, err := kv.Set(key, []byte(strconv.Itoa(visits))); err != nil {
		return fmt.Errorf("keep the count: %w", err)
	}
	_, err = fmt.Fprintf(reply, "%s: %d", name, visits)
	return err
}
