package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"

	"nex/internal/config"
	"nex/internal/image"
)

// imageCmd makes and keeps what microVMs boot.
type imageCmd struct {
	*cli
	dir         string // of the store
	config      string // of the node that boots the images
	configGiven bool
	names       []string
}

// buildCmd makes an image.
type buildCmd struct {
	imageCmd
	name, output  string
	nameGiven     bool
	init          string
	size          string
	image.Options // but for Init and Size, which flags name otherwise
}

func (c *cli) addImage(ctx context.Context, app *fisk.Application) {
	parent := app.Command("image", "Make and keep what microVMs boot: kernel, initramfs and root file system").Alias("images")
	i := &imageCmd{cli: c}
	parent.Flag("dir", "Where images are kept (images in the node's state directory)").PlaceHolder("DIR").StringVar(&i.dir)
	parent.Flag("config", "Configuration of the node that boots them, for its state directory; ./config.json if it is there").PlaceHolder("FILE").Default("./config.json").IsSetByUser(&i.configGiven).StringVar(&i.config)

	b := &buildCmd{}
	cmd := parent.Command("build", `Make an image

Takes Debian's kernel for virtual machines, which apt downloads and does not
install, and the nex-agent beside nex. Needs neither root nor Docker.`).Action(action(ctx, func(ctx context.Context) error {
		b.imageCmd = *i
		return b.run(ctx)
	}))
	cmd.Arg("name", "Name of the image, which replaces one that has it").Default(image.DefaultName).IsSetByUser(&b.nameGiven).StringVar(&b.name)
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

// store opens the store of images: that of the node, unless another is named.
func (i *imageCmd) store() (*image.Store, error) {
	if i.dir != "" {
		if i.configGiven {
			return nil, errors.New("--dir and --config both say where images are kept: keep one")
		}
		return image.Open(i.dir), nil
	}
	state, settings, err := i.node()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(state, "images")
	if r := settings.ResourceDir; r != "" && !within(dir, r) {
		fmt.Fprintln(i.stderr, escapeLines(fmt.Sprintf("nex: the node of %s boots what is in %s (\"default_resource_dir\"), and not the images in %s: nex image build -o %s writes one there", i.config, r, dir, r)))
	}
	return image.Open(dir), nil
}

// node returns the state directory and the settings of the node that boots images.
func (i *imageCmd) node() (state string, settings config.Config, err error) {
	settings, _, err = config.Load(i.config)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !i.configGiven:
		settings = config.Default()
	case err != nil && !i.configGiven:
		return "", settings, fmt.Errorf("%w (if that is no node's, name the node's with --config, or where images are kept with --dir)", err)
	case err != nil:
		return "", settings, err
	}
	state, _, err = (&up{cli: i.cli}).state(settings)
	return state, settings, err
}

// within reports whether path is in dir.
func within(dir, path string) bool {
	dir, dirErr := filepath.Abs(dir)
	path, pathErr := filepath.Abs(path)
	rel, err := filepath.Rel(dir, path)
	return errors.Join(dirErr, pathErr, err) == nil && filepath.IsLocal(rel)
}

// built is what --json prints of an image that was made.
type built struct {
	image.Image
	Dir string `json:"dir"` // of its files
}

func (b *buildCmd) run(ctx context.Context) error {
	if err := b.contradiction(); err != nil {
		return err
	}
	o := b.Options
	if err := b.fill(&o); err != nil {
		return err
	}
	began := time.Now()
	o.Progress = func(stage string) {
		b.announce(fmt.Sprintf("%5.1fs  %s", time.Since(began).Seconds(), stage))
	}
	made, dir, err := b.build(ctx, o)
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if b.json {
		return b.printJSON(built{made, dir})
	}
	where := dir
	if b.output == "" {
		where = fmt.Sprintf("image %s in %s", b.name, dir)
	}
	fmt.Fprintf(b.stdout, "Built %s: kernel %s, agent %s\n", where, made.Kernel.Version, cmp.Or(made.Agent.Version, "of "+made.Rootfs.Source))
	return nil
}

// contradiction refuses flags of which one would have no effect.
func (b *buildCmd) contradiction() error {
	if b.output != "" && (b.nameGiven || b.dir != "" || b.configGiven) {
		return errors.New("an image is either kept in a store (NAME, --dir, --config) or written into a directory (-o)")
	}
	var kernels []string
	for _, f := range []struct{ flag, value string }{{"--kernel", b.KernelFile}, {"--kernel-deb", b.KernelDeb}, {"--kernel-dir", b.KernelDir}} {
		if f.value != "" {
			kernels = append(kernels, f.flag)
		}
	}
	switch {
	case len(kernels) > 1:
		return fmt.Errorf("%s each name a kernel: keep one", strings.Join(kernels, " and "))
	case b.Modules != "" && b.KernelFile == "":
		return errors.New("--modules are those of --kernel, which is not given: the other flags find modules beside their kernel")
	case b.Rootfs != "" && b.Agent != "":
		return errors.New("--rootfs has an agent already, and --agent names another: keep one (nex rootfs --agent makes a file system with that one)")
	case b.Rootfs != "" && b.size != "":
		return errors.New("--rootfs has its size, and --size is for the file system that is made without it: keep one")
	}
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
func (b *buildCmd) build(ctx context.Context, o image.Options) (made image.Image, dir string, err error) {
	if b.output != "" {
		made, err = image.Export(ctx, b.output, o)
		return made, b.output, err
	}
	store, err := b.store()
	if err != nil {
		return made, "", err
	}
	made, err = store.Build(ctx, b.name, o)
	return made, store.Dir(b.name), err
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
	images, others, err := store.List()
	if err != nil {
		return err
	}
	i.tell(others)
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

// tell tells of what in a store is no image.
func (i *imageCmd) tell(others []image.Other) {
	for _, o := range others {
		fmt.Fprintln(i.stderr, escapeLines("nex: "+o.String()))
	}
}

// verify checks all that was asked for, and fails for each that is not as it was.
func (i *imageCmd) verify(ctx context.Context) error {
	store, err := i.store()
	if err != nil {
		return err
	}
	report := struct {
		Verified []string          `json:"verified"`
		Wrong    map[string]string `json:"wrong"` // why, by name
	}{[]string{}, map[string]string{}}
	names := i.names
	if len(names) == 0 {
		images, others, err := store.List()
		if err != nil {
			return err
		}
		for _, m := range images {
			names = append(names, m.Name)
		}
		for _, o := range others {
			if errors.Is(o.Err, fs.ErrNotExist) {
				i.tell([]image.Other{o})
				continue
			}
			names = append(names, filepath.Base(o.Dir)) // it was an image
		}
	}
	var wrong []error
	for _, name := range names {
		_, err := store.Get(name)
		if err == nil {
			_, err = image.Verify(ctx, store.Dir(name))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("image %s: %w", name, err))
			report.Wrong[name] = err.Error()
			continue
		}
		report.Verified = append(report.Verified, name)
		i.report("Image " + name + " is as it was built")
	}
	if i.json {
		wrong = append(wrong, i.printJSON(report))
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
	p, others, err := store.Prune()
	i.tell(others)
	if err != nil {
		return err
	}
	if i.json {
		return i.printJSON(p)
	}
	fmt.Fprintf(i.stdout, "Removed %d files, %s\n", len(p.Files), humanize.IBytes(uint64(p.Bytes)))
	return nil
}
