//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "nex-init: runs in microVMs, which are Linux")
	os.Exit(1)
}
