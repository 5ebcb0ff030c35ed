package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/choria-io/fisk"
	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"

	"nex/internal/image"
	"nex/internal/node"
)

// imageCmd makes and keeps what microVMs boot.
type imageCmd struct {
	*cli
	dir   string // of the store
	names []string
}

// buildCmd makes an image.
type buildCmd struct {
	imageCmd
	name, output  string
	init          string
	size          string
	image.Options // but for Init and Size, which flags name otherwise
}

func (c *cli) addImage(ctx context.Context, app *fisk.Application) {
	parent := app.Command("image", "Make and keep what microVMs boot: kernel, initramfs and root file system").Alias("images")
	i := &imageCmd{cli: c}
	parent.Flag("dir", "Where images are kept (images in the state directory)").PlaceHolder("DIR").StringVar(&i.dir)

	b := &buildCmd{}
	cmd := parent.Command("build", `Make an image

Takes Debian's kernel for virtual machines, which apt downloads and does not
install, and the nex-agent beside nex. Needs neither root nor Docker.`).Action(action(ctx, func(ctx context.Context) error {
		b.imageCmd = *i
		return b.run(ctx)
	}))
	cmd.Arg("name", "Name of the image, which replaces one that has it").Default(image.DefaultName).StringVar(&b.name)
	cmd.Flag("output", "Write the files into this directory instead of keeping an image: for default_resource_dir").Short('o').PlaceHolder("DIR").StringVar(&b.output)
	cmd.Flag("agent", "Agent for guests, static and for Linux on amd64 (nex-agent beside nex)").PlaceHolder("FILE").StringVar(&b.Agent)
	cmd.Flag("rootfs", "Take this ext4 file system, which nex rootfs makes, instead of one with the agent alone").PlaceHolder("FILE").ExistingFileVar(&b.Rootfs)
	cmd.Flag("kernel-deb", "Take the kernel from this Debian package (linux-image-…-cloud-amd64)").PlaceHolder("FILE").ExistingFileVar(&b.KernelDeb)
	cmd.Flag("kernel-dir", "Take the kernel from a directory where such a package was unpacked").PlaceHolder("DIR").ExistingDirVar(&b.KernelDir)
	cmd.Flag("kernel", "Take this kernel, a vmlinuz or vmlinux").PlaceHolder("FILE").ExistingFileVar(&b.KernelFile)
	cmd.Flag("modules", "Modules of --kernel, as /lib/modules/VERSION; without them it has to have built in what guests need").PlaceHolder("DIR").ExistingDirVar(&b.Modules)
	cmd.Flag("init", "First program of guests (the one that make build puts into nex)").PlaceHolder("FILE").ExistingFileVar(&b.init)
	cmd.Flag("size", "Size of the file system with the agent, in bytes or as 64MiB (as small as it gets)").PlaceHolder("SIZE").StringVar(&b.size)

	parent.Command("ls", "List the images").Alias("list").Action(action(ctx, func(context.Context) error { return i.list() }))
	verify := parent.Command("verify", "Compare the files of images with what they were").Action(action(ctx, i.verify))
	verify.Arg("name", "Images; all if there is none").StringsVar(&i.names)
	rm := parent.Command("rm", "Remove images").Action(action(ctx, func(context.Context) error { return i.remove() }))
	rm.Arg("name", "Images").Required().StringsVar(&i.names)
	parent.Command("prune", "Remove files that no image has any more").Action(action(ctx, func(context.Context) error { return i.prune() }))
}

// store opens the store of images.
func (i *imageCmd) store() (*image.Store, error) {
	if i.dir != "" {
		return image.Open(i.dir), nil
	}
	state, err := node.DefaultStateDir()
	return image.Open(filepath.Join(state, "images")), err
}

func (b *buildCmd) run(ctx context.Context) error {
	if b.output != "" && b.name != image.DefaultName {
		return errors.New("an image is either kept under a name or written into a directory (-o)")
	}
	o := b.Options
	if err := b.fill(&o); err != nil {
		return err
	}
	began := time.Now()
	o.Progress = func(stage string) {
		b.announce(fmt.Sprintf("%5.1fs  %s", time.Since(began).Seconds(), stage))
	}
	made, where, err := b.build(ctx, o)
	if err != nil {
		return err
	}
	if b.json {
		return b.printJSON(made)
	}
	fmt.Fprintf(b.stdout, "Built %s: kernel %s, agent %s\n", where, made.Kernel.Version, cmp.Or(made.Agent.Version, "of "+made.Rootfs.Source))
	return nil
}

// fill reads what flags name.
func (b *buildCmd) fill(o *image.Options) (err error) {
	if b.init == "" {
		o.Init, err = image.Init()
	} else {
		o.Init, err = os.ReadFile(b.init)
	}
	if err != nil {
		return err
	}
	if b.size != "" {
		if o.Size, err = parseSize(b.size); err != nil {
			return err
		}
	}
	if o.Agent == "" && o.Rootfs == "" {
		o.Agent, err = guestAgent()
	}
	return err
}

// build makes the image where it belongs.
func (b *buildCmd) build(ctx context.Context, o image.Options) (made image.Image, where string, err error) {
	if b.output != "" {
		made, err = image.Export(ctx, b.output, o)
		return made, b.output, err
	}
	store, err := b.store()
	if err != nil {
		return made, "", err
	}
	made, err = store.Build(ctx, b.name, o)
	return made, fmt.Sprintf("image %s in %s", b.name, store.Dir(b.name)), err
}

// guestAgent returns the agent beside nex.
func guestAgent() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the agent beside nex: %w", err)
	}
	path := filepath.Join(filepath.Dir(self), "nex-agent")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no agent for guests beside nex (%s): name one with --agent", path)
	}
	return path, nil
}

// parseSize reads a number of bytes, with a unit or without.
func parseSize(text string) (int64, error) {
	n, err := humanize.ParseBytes(text)
	if err != nil || n == 0 || n > 1<<40 {
		return 0, fmt.Errorf("%q is no size: give bytes, or a number with a unit as in 150MiB", text)
	}
	return int64(n), nil
}

func (i *imageCmd) list() error {
	store, err := i.store()
	if err != nil {
		return err
	}
	images, err := store.List()
	if err != nil {
		fmt.Fprintln(i.stderr, escapeLines("nex: "+err.Error()))
	}
	if i.json {
		if images == nil {
			images = []image.Image{}
		}
		return i.printJSON(images)
	}
	if len(images) == 0 {
		fmt.Fprintln(i.stdout, "No images: nex image build makes one")
		return nil
	}
	t := newTable("Images")
	t.AppendHeader(table.Row{"Name", "Kernel", "Agent", "Root file system", "Size", "Created"})
	for _, m := range images {
		size := uint64(0)
		for _, f := range m.Files {
			size += uint64(f.Size)
		}
		t.AppendRow(table.Row{m.Name, m.Kernel.Version, m.Agent.Version, m.Rootfs.Source, humanize.IBytes(size), m.Created})
	}
	fmt.Fprintln(i.stdout, t.Render())
	return nil
}

// verify checks all that was asked for, and fails for each that is not as it was.
func (i *imageCmd) verify(ctx context.Context) error {
	store, err := i.store()
	if err != nil {
		return err
	}
	names := i.names
	if len(names) == 0 {
		images, err := store.List()
		if err != nil {
			return err
		}
		for _, m := range images {
			names = append(names, m.Name)
		}
	}
	good := []string{}
	var wrong []error
	for _, name := range names {
		_, err := store.Get(name)
		if err == nil {
			_, err = image.Verify(ctx, store.Dir(name))
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("image %s: %w", name, err))
			continue
		}
		good = append(good, name)
		i.report("Image " + name + " is as it was built")
	}
	if i.json {
		wrong = append(wrong, i.printJSON(map[string]any{"verified": good}))
	}
	return errors.Join(wrong...)
}

func (i *imageCmd) remove() error {
	store, err := i.store()
	if err != nil {
		return err
	}
	for _, name := range i.names {
		if err := store.Remove(name); err != nil {
			return err
		}
		i.report("Removed image " + name)
	}
	if i.json {
		return i.printJSON(map[string]any{"removed": i.names})
	}
	i.announce("nex image prune frees what no other image shares")
	return nil
}

// report prints a result for people.
func (i *imageCmd) report(text string) {
	if !i.json {
		fmt.Fprintln(i.stdout, text)
	}
}

func (i *imageCmd) prune() error {
	store, err := i.store()
	if err != nil {
		return err
	}
	p, err := store.Prune()
	if err != nil {
		return err
	}
	if i.json {
		return i.printJSON(p)
	}
	fmt.Fprintf(i.stdout, "Removed %d files, %s\n", len(p.Files), humanize.IBytes(uint64(p.Bytes)))
	return nil
}
