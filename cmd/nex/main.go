// Command nex deploys workloads to NATS systems and runs the nodes that take
// them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/choria-io/fisk"

	"nex"
	"nex/internal/confine"
	"nex/internal/vmnet/forward"
	"nex/internal/vmnet/tap"
)

// version is set at build time.
var version = "development"

// Exit codes.
const (
	exitOK          = 0
	exitUsage       = 1   // wrong flags or input, or a failure on this side
	exitRefused     = 2   // a node refused or failed
	exitUnreachable = 3   // NATS or the node cannot be reached
	exitTimeout     = 4   // no answer in time
	exitInterrupted = 130 // Ctrl-C
)

const help = `Deploys workloads to NATS systems and runs the nodes that take them.

First steps: "nex dev" starts NATS and a node on this machine; then, in
another terminal, "nex devrun ./echo.js --trigger_subject=js.echo" deploys a
function and "nats req js.echo hi" calls it.

Exit codes: 0 done, 1 wrong usage or input, 2 refused by a node, 3 NATS or
node not reachable, 4 no answer in time, 130 interrupted.`

func main() {
	if err := confine.BeStep(); err != nil { // of a root file system's build; does not return there
		os.Exit(exitUsage)
	}
	if tap.Called(os.Args[0], os.Getenv("CNI_COMMAND")) { // nex is a plugin, too
		os.Exit(tap.Run(os.Stdout))
	}
	if address, ok := forward.Called(os.Args); ok { // for a connection of a guest
		if err := forward.Run(os.Stdin, os.Stdout, address); err != nil {
			fmt.Fprintln(os.Stderr, "nex:", err)
			os.Exit(exitUsage)
		}
		os.Exit(exitOK)
	}
	p := &process{}
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go func() {
		<-signals
		cancel()
		<-signals // whoever asks twice does not want to wait
		p.removeTemp()
		os.Exit(exitInterrupted)
	}()
	os.Exit(run(ctx, p, os.Args[1:], os.Stdout, os.Stderr))
}

// cli is what the commands share.
type cli struct {
	*process
	stdout, stderr io.Writer
	conn           connOptions
	log            logOptions
	namespace      string
	json           bool
}

// failed marks an error of a command's work, to tell it from wrong usage.
type failed struct{ error }

func (f failed) Unwrap() error { return f.error }

// terminated carries an exit out of the flag parser.
type terminated int

// run is the whole program but the process: it parses, does the work and
// returns the exit code.
func run(ctx context.Context, p *process, args []string, stdout, stderr io.Writer) (code int) {
	c := &cli{process: p, stdout: stdout, stderr: stderr}
	app := fisk.New("nex", help)
	app.UsageWriter(stdout).ErrorWriter(stderr)
	app.HelpFlag.Short('h')
	app.Version(version)
	app.Terminate(func(code int) { panic(terminated(code)) })
	defer func() {
		switch p := recover().(type) {
		case nil:
		case terminated:
			code = int(p)
		default:
			panic(p) // not ours
		}
	}()
	c.addGlobalFlags(app)
	c.addDev(ctx, app)
	c.addDevrun(ctx, app)
	c.addRun(ctx, app)
	c.addStop(ctx, app)
	c.addLogs(ctx, app)
	c.addEvents(ctx, app)
	c.addNode(ctx, app)
	c.addImage(ctx, app)
	c.addRootfs(ctx, app)
	c.addLameDuck(ctx, app)
	c.addVersion(app)

	_, err := app.Parse(args)
	var f failed
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &f):
		text := f.Error()
		if ctx.Err() != nil {
			text = "interrupted"
		}
		if !strings.HasPrefix(text, "⛔") {
			text = "nex: error: " + text
		}
		fmt.Fprintln(stderr, escapeLines(text))
		return exitCode(ctx, f)
	}
	fmt.Fprintf(stderr, "nex: error: %v, try --help\n", err)
	return exitUsage
}

// exitCode sorts errors for scripts.
func exitCode(ctx context.Context, err error) int {
	var unreachable unreachableError
	var refused refusedError
	switch {
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &unreachable):
		return exitUnreachable
	case nex.CodeOf(err) == nex.Timeout, errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.As(err, &refused):
		return exitRefused
	}
	return exitUsage
}

// refusedError is what a node answered instead of doing what was asked.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// unreachableError means that nobody was there to answer.
type unreachableError struct{ error }

func (e unreachableError) Unwrap() error { return e.error }

// action adapts a command's work to the flag parser.
func action(ctx context.Context, work func(context.Context) error) fisk.Action {
	return func(*fisk.ParseContext) error {
		if err := work(ctx); err != nil {
			return failed{err}
		}
		return nil
	}
}

func (c *cli) addGlobalFlags(app *fisk.Application) {
	c.conn.addFlags(app)
	app.Flag("namespace", "Namespace of workloads").Envar("NEX_NAMESPACE").Default(nex.DefaultNamespace).StringVar(&c.namespace)
	app.Flag("json", "Print results as JSON").UnNegatableBoolVar(&c.json)
	app.Flag("loglevel", "Least level of log lines: none, debug, info, warn, error").Envar("NEX_LOGLEVEL").Default("info").EnumVar(&c.log.Level, "none", "debug", "info", "warn", "error")
	app.Flag("logger", "Where node up and dev log to: std, file (./nex.log and ./nex.err) or nats ($NEX.logs.system.NODE.stdout and .stderr); repeat for several; with nats alone warnings and errors are printed too").Envar("NEX_LOGGER").Default(sinkStd).PlaceHolder("std").SetValue(&c.log.Sinks)
	app.Flag("logjson", "Print log lines as JSON").Envar("NEX_LOGJSON").UnNegatableBoolVar(&c.log.JSON)
	app.Flag("logcolor", "Print log lines in colour").Envar("NEX_LOG_COLORIZED").UnNegatableBoolVar(&c.log.Color)
	app.Flag("timeformat", "Time in log lines: DateOnly, DateTime, Stamp, RFC822, RFC3339").Envar("NEX_LOG_TIMEFORMAT").Default("DateTime").EnumVar(&c.log.TimeFormat, "DateOnly", "DateTime", "Stamp", "RFC822", "RFC3339")
}

func (c *cli) addVersion(app *fisk.Application) {
	app.Command("version", "Print the version").Action(func(*fisk.ParseContext) error {
		if c.json {
			return c.printJSON(map[string]string{"version": version})
		}
		fmt.Fprintln(c.stdout, version)
		return nil
	})
}
