package node

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"nex/internal/nextest"
)

// TestSystemLogNeverBlocks logs more than waits for NATS: the first lines are
// published later, and the loss of the others is told where it is no loss.
func TestSystemLogNeverBlocks(t *testing.T) {
	nc := nextest.Connect(t, nextest.Server(t))
	sub, err := nc.SubscribeSync("$NEX.logs.system.N1.*")
	if err != nil {
		t.Fatal(err)
	}
	var local bytes.Buffer
	cfg := Config{
		Log: slog.New(slog.NewTextHandler(&local, nil)),
		SystemLog: func(stdout, _ io.Writer) *slog.Logger {
			return slog.New(slog.NewTextHandler(stdout, nil))
		},
	}
	before := cfg.Log
	system := newSystemLog(&cfg)
	const lost = 7
	for n := range queuedLines + lost {
		cfg.Log.Info(fmt.Sprintf("line %d", n))
	}
	connected := make(chan struct{})
	close(connected)
	system.publish(nc, "N1", connected, before).stop()
	for n := range queuedLines {
		m, err := sub.NextMsg(nextest.Patience)
		if err != nil {
			t.Fatalf("line %d: %v", n, err)
		}
		if want := fmt.Sprintf(`msg="line %d"`, n); !bytes.HasSuffix(m.Data, []byte(want)) {
			t.Fatalf("got %q, want %q and no line end", m.Data, want)
		}
	}
	if want := fmt.Sprintf("not published\" count=%d\n", lost); !strings.Contains(local.String(), want) {
		t.Errorf("the local log does not say %q", want)
	}
	if n, _, _ := sub.Pending(); n != 0 {
		t.Errorf("%d more lines were published", n)
	}
}
