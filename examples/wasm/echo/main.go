// Command echo is a Nex function in Go: it answers each message with its
// payload followed by the subject it came on.
//
//	GOOS=wasip1 GOARCH=wasm go build -o echo.wasm ./examples/wasm/echo
//
// Nex runs the program once for every message: standard input is the payload,
// the first argument is the subject, and standard output is the reply.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := answer(os.Args, os.Stdin, os.Stdout); err != nil {
		// Standard error goes to the workload's log, and its last line into
		// the error that the caller gets.
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

func answer(args []string, payload io.Reader, reply io.Writer) error {
	if len(args) < 2 {
		return errors.New("no subject: this program is run by Nex")
	}
	if _, err := io.Copy(reply, payload); err != nil {
		return err
	}
	_, err := io.WriteString(reply, args[1])
	return err
}
