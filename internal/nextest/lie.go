package nextest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"nex/internal/agent"
	"nex/internal/nextest/liar"
)

// lieMarker is a file beside an agent that says how the next one is to lie.
const lieMarker = "lie"

// LieNext has the next agent that is started by this path, and runs in no root
// directory of its own, be a liar: see package liar. Those after it are honest.
func LieNext(path, lie string) error {
	marker := filepath.Join(filepath.Dir(path), lieMarker)
	if err := os.WriteFile(marker+".new", []byte(lie), 0o600); err != nil {
		return err
	}
	return os.Rename(marker+".new", marker)
}

// takeLie returns how this agent is to lie, if it is to: of several that start at
// once one alone.
func takeLie() (lie string, ok bool) {
	marker := filepath.Join(filepath.Dir(os.Args[0]), lieMarker)
	mine := marker + strconv.Itoa(os.Getpid())
	if err := os.Rename(marker, mine); err != nil {
		return "", false
	}
	text, err := os.ReadFile(mine)
	if err != nil || os.Remove(mine) != nil {
		return "", false
	}
	return string(text), true
}

// runLiar is the main function of an agent that lies; it returns the exit code.
func runLiar(lie string) int {
	link, err := agent.InheritedLink()
	if err == nil {
		err = liar.Tell(context.Background(), lie, link)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "liar:", err)
		return 1
	}
	return 0
}
