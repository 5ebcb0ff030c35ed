package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/choria-io/fisk"
	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/progress"

	"nex/internal/image"
	"nex/internal/rootfs"
)

// defaultBase is the base image of the guide.
const defaultBase = "synadia/nex-rootfs:alpine"

// rootfsCmd builds root file systems.
type rootfsCmd struct {
	*cli
	rootfs.Options // but for Size and RunNetwork
	size           string
	network        string // of build steps
	file           string // to inspect
}

func (c *cli) addRootfs(ctx context.Context, app *fisk.Application) {
	r := &rootfsCmd{cli: c}
	parent := app.Command("rootfs", `Build custom rootfs

Pulls and unpacks the base image itself: without Docker, without root and
without mounting anything. Equal inputs make equal files. --image takes

  NAME       an image of a registry, with the credentials of docker login
             or podman login
  FILE       what docker save or podman save wrote, an OCI archive, or a tar
             archive of a root directory, compressed or not
  DIRECTORY  an OCI layout
  scratch    nothing but the agent and what it needs, as nex image build
             has it

The default is the base of the Nex guide, Alpine with OpenRC, in the registry
that names without one mean.
Where that cannot be reached, docker save or podman save writes it to a file
elsewhere, or name any other base: an archive of a root directory that has a
shell is enough, as mmdebstrap or debootstrap make them; scratch needs nothing.

The agent starts as a service of OpenRC or systemd where the image has one of
them as its init, and as the first process otherwise.

--run is a build step: a command for /bin/sh of the image, run in it as its
root, over what the base has and before the agent is added. Steps are confined:
they see nothing of the host, have no network unless --run-network says host,
and end after --run-timeout. A step that fails ends the build. Steps need root,
since only root can make files that belong to an image's users; Linux on amd64,
as guests have; user namespaces; and a /bin/sh in the image. They are refused
where one is missing; all else is built without root.`).Alias("fs")
	parent.Flag("script", "Additional boot script ran during initialization: once, before the agent takes work").PlaceHolder("script.sh").ExistingFileVar(&r.Script)
	parent.Flag("image", "Base image for rootfs build").Default(defaultBase).StringVar(&r.Base)
	parent.Flag("agent", "Path to agent binary, static and for Linux on amd64 (nex-agent beside nex)").PlaceHolder("../path/to/nex-agent").ExistingFileVar(&r.Agent)
	parent.Flag("size", "Size of rootfs filesystem, in bytes or as 150MiB").Default(fmt.Sprint(rootfs.DefaultSize)).StringVar(&r.size)
	parent.Flag("run", "Build step: a command that is run in the image with its /bin/sh; repeat for several").PlaceHolder("CMD").StringsVar(&r.Run)
	parent.Flag("run-timeout", "How long a build step may take").Default(rootfs.DefaultRunTimeout.String()).DurationVar(&r.RunTimeout)
	parent.Flag("run-network", "Network of build steps: none, or host for the host's").Default("none").EnumVar(&r.network, "none", "host")
	parent.Flag("output", "File to write, replaced when the new one is whole; compressed if its name ends in .gz; in a directory it is rootfs.ext4").Short('o').Default(image.Rootfs).StringVar(&r.Output)
	parent.Command("build", "Build it, which is what nex rootfs alone does").Default().Action(action(ctx, r.build))
	inspect := parent.Command("inspect", "Show what is in a root file system").Action(action(ctx, r.inspect))
	inspect.Arg("file", "File of the file system, compressed or not").Required().ExistingFileVar(&r.file)
}

func (r *rootfsCmd) build(ctx context.Context) (err error) {
	o := r.Options
	if o.Size, err = parseSize(r.size); err != nil {
		return err
	}
	if o.Agent == "" {
		if o.Agent, err = guestAgent(); err != nil {
			return err
		}
	}
	o.AgentVersion = image.AgentVersion(ctx, o.Agent)
	o.Sum, o.RunNetwork = r.json, r.network == "host"
	temp, remove, err := r.tempDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	o.Temp = temp
	progress, print, done := r.stages()
	printed := &lines{tell: print}
	o.Progress, o.Printed = progress, printed
	result, err := rootfs.Build(ctx, o)
	printed.flush()
	done()
	var small *rootfs.TooSmallError
	switch {
	case errors.As(err, &small):
		return fmt.Errorf("what %s and the agent have does not fit into %s: it needs --size=%dMiB, and more if guests are to write into it", r.Base, humanize.IBytes(uint64(small.Size)), (small.Need+1<<20-1)>>20)
	case err != nil:
		return err
	case r.json:
		return r.printJSON(result)
	}
	fmt.Fprintf(r.stdout, "Wrote %s: %s, of which %s are free, %s files, agent started %s\n", result.Path,
		humanize.IBytes(uint64(result.Size)), humanize.IBytes(uint64(result.Free)), humanize.Comma(int64(result.Files)), startedBy(result.Start))
	if result.User != "" {
		fmt.Fprintf(r.stdout, "The base has a user with the number of nex, %s: nex is a second name for it\n", escape(result.User))
	}
	return nil
}

func startedBy(start string) string {
	switch start {
	case rootfs.ByOpenRC:
		return "by OpenRC"
	case rootfs.BySystemd:
		return "by systemd"
	}
	return "as the first process"
}

// stages shows what a build does: on a terminal a bar for each stage, else a line.
// print prints a line between them. done waits until the last one is drawn.
func (r *rootfsCmd) stages() (tell func(stage string, done, total int64), print func(string), done func()) {
	print = func(line string) { fmt.Fprintln(r.stderr, escape(line)) }
	switch {
	case r.json:
		return nil, print, func() {}
	case !isTerminal(r.stderr):
		last := ""
		return func(stage string, _, _ int64) {
			if stage != last {
				fmt.Fprintln(r.stderr, escape(stage))
			}
			last = stage
		}, print, func() {}
	}
	w := progress.NewWriter()
	w.SetOutputWriter(r.stderr)
	w.SetUpdateFrequency(100 * time.Millisecond)
	w.SetAutoStop(false)
	drawn := make(chan struct{})
	go func() { defer close(drawn); w.Render() }()
	var mu sync.Mutex
	var now *progress.Tracker
	tell = func(stage string, done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if now == nil || now.Message != stage {
			if now != nil {
				now.MarkAsDone()
			}
			now = &progress.Tracker{Message: stage, Units: progress.UnitsBytes}
			w.AppendTracker(now)
		}
		now.UpdateTotal(total)
		now.SetValue(done)
	}
	print = func(line string) { w.Log("%s", escape(line)) }
	return tell, print, func() {
		mu.Lock()
		defer mu.Unlock()
		if now != nil {
			now.MarkAsDone()
		}
		w.Stop()
		<-drawn
	}
}

// lines is a writer that tells what is written line by line.
type lines struct {
	tell func(line string)
	rest []byte
}

// maxLine bounds a line, in bytes: what is longer is cut into several.
const maxLine = 16 << 10

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			break
		}
		l.tell(string(line))
		l.rest = rest
	}
	if len(l.rest) > maxLine {
		l.flush()
	}
	return len(p), nil
}

// flush tells the line that has no end yet, if there is one.
func (l *lines) flush() {
	if len(l.rest) > 0 {
		l.tell(string(l.rest))
	}
	l.rest = nil
}

func (r *rootfsCmd) inspect(ctx context.Context) error {
	facts, err := rootfs.Inspect(ctx, r.file)
	if err != nil && !errors.Is(err, rootfs.ErrNoAgent) {
		return err
	}
	if r.json {
		return errors.Join(r.printJSON(facts), err)
	}
	agent := "none"
	if facts.AgentSize > 0 {
		agent = fmt.Sprintf("%s, %s, SHA-256 %s", versionOr(facts.Record.AgentVersion), humanize.IBytes(uint64(facts.AgentSize)), facts.AgentSHA256)
	}
	start := facts.Record.Start
	if start == "" && facts.Init {
		start = "its init"
	}
	for _, line := range [][2]string{
		{"Size", fmt.Sprintf("%s, of which %s are free for %s files", humanize.IBytes(uint64(facts.Size)), humanize.IBytes(uint64(facts.Free)), humanize.Comma(facts.FreeInodes))},
		{"Agent", agent},
		{"Started", start},
		{"Boot script", map[bool]string{true: rootfs.ScriptPath, false: "none"}[facts.Script]},
		{"Base", facts.Record.Base + " " + facts.Record.Digest},
		{"UUID", facts.UUID},
	} {
		fmt.Fprintf(r.stdout, "%12s: %s\n", line[0], escape(line[1]))
	}
	return err
}

func versionOr(version string) string {
	if version == "" {
		return "of unknown version"
	}
	return "version " + version
}
