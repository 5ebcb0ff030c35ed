package main

import (
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
	rootfs.Options // but for Size
	size           string
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

The agent starts as a service of OpenRC or systemd where the image has one of
them as its init, and as the first process otherwise.`).Alias("fs")
	parent.Flag("script", "Additional boot script ran during initialization: once, before the agent takes work").PlaceHolder("script.sh").ExistingFileVar(&r.Script)
	parent.Flag("image", "Base image for rootfs build").Default(defaultBase).StringVar(&r.Base)
	parent.Flag("agent", "Path to agent binary, static and for Linux on amd64 (nex-agent beside nex)").PlaceHolder("../path/to/nex-agent").ExistingFileVar(&r.Agent)
	parent.Flag("size", "Size of rootfs filesystem, in bytes or as 150MiB").Default(fmt.Sprint(rootfs.DefaultSize)).StringVar(&r.size)
	parent.Flag("output", "File to write; compressed if its name ends in .gz").Short('o').Default(image.Rootfs).StringVar(&r.Output)
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
	o.Sum = r.json
	bar, done := r.stages()
	o.Progress = bar
	result, err := rootfs.Build(ctx, o)
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

// stages shows what a build does on a terminal: a bar for each stage. done waits
// until the last one is drawn.
func (r *rootfsCmd) stages() (tell func(stage string, done, total int64), done func()) {
	if r.json || !isTerminal(r.stderr) {
		return nil, func() {}
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
	return tell, func() {
		mu.Lock()
		defer mu.Unlock()
		if now != nil {
			now.MarkAsDone()
		}
		w.Stop()
		<-drawn
	}
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
