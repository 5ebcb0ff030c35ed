package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/choria-io/fisk"

	"nex/internal/config"
	"nex/internal/preflight"
)

// preflightCmd looks whether a host is ready for a node, and readies it.
type preflightCmd struct {
	*cli
	stdin                          io.Reader
	config, stateDir, init         string
	configGiven                    bool
	check, yes, verify, verbose    bool
	installVersion, manifest, from string
	nameservers                    []string
	sha256                         map[string]string

	input *bufio.Reader
}

const preflightHelp = `Look whether this host is ready to run a node, and ready it

Tells what is there, what is missing, why a node needs it and what to do, and
ends with 0 if all that is needed is there. What it can install it installs if
you agree: to its question, or beforehand by --yes. Files come from --from DIR,
or from the internet as the manifest says, where their digests are known.`

func (c *cli) addNodePreflight(ctx context.Context, node *fisk.CmdClause) {
	p := &preflightCmd{cli: c, stdin: os.Stdin, sha256: map[string]string{}}
	cmd := node.Command("preflight", preflightHelp).Action(action(ctx, p.run))
	cmd.Flag("config", "Configuration of the node; without ./config.json the built-in settings").PlaceHolder("FILE").Default("./config.json").IsSetByUser(&p.configGiven).StringVar(&p.config)
	cmd.Flag("check", "Change nothing, ask nothing").UnNegatableBoolVar(&p.check)
	cmd.Flag("yes", "Install all that is missing without asking").Short('y').UnNegatableBoolVar(&p.yes)
	cmd.Flag("force", "The same, as in Nex 0.2.7").UnNegatableBoolVar(&p.yes)
	cmd.Flag("init", "Write a configuration first, if there is none: sandbox or nosandbox").PlaceHolder("KIND").EnumVar(&p.init, "sandbox", "nosandbox")
	cmd.Flag("from", "Take files from this directory and nothing from the internet; SHA256SUMS in it is obeyed").PlaceHolder("DIR").ExistingDirVar(&p.from)
	cmd.Flag("manifest", "Where to download from, instead of the built-in list").PlaceHolder("FILE|URL").StringVar(&p.manifest)
	cmd.Flag("sha256", "What the SHA-256 of a download must be, as in firecracker=HEX; repeat for several").PlaceHolder("NAME=HEX").StringMapVar(&p.sha256)
	cmd.Flag("install_version", "What {version} in the URLs of the manifest stands for").PlaceHolder("VERSION").Default(version).StringVar(&p.installVersion)
	cmd.Flag("verify", "Compare what was installed with its digests first").UnNegatableBoolVar(&p.verify)
	cmd.Flag("verbose", "Tell where was looked, and what is not needed").UnNegatableBoolVar(&p.verbose)
	cmd.Flag("cni_ns", "Name server for the CNI configuration that is written; repeat for several").PlaceHolder("IP").StringsVar(&p.nameservers)
	cmd.Flag("state-dir", "Where the node keeps its identity and its files").PlaceHolder("DIR").StringVar(&p.stateDir)
}

// preflightReport is what --json prints.
type preflightReport struct {
	Ready     bool                 `json:"ready"`
	Config    string               `json:"config,omitempty"`   // "" for the built-in settings
	Warnings  []string             `json:"warnings,omitempty"` // of the configuration
	Findings  []preflight.Finding  `json:"findings"`
	Installed []string             `json:"installed"`          // what was done
	Failed    []string             `json:"failed"`             // what could not be
	Verified  []preflight.Verified `json:"verified,omitempty"` // what had been installed before
}

func (p *preflightCmd) run(ctx context.Context) error {
	for name, digest := range p.sha256 {
		if err := preflight.CheckDigest(digest); err != nil {
			return fmt.Errorf("--sha256 %s=%s: %w", name, digest, err)
		}
	}
	host, report, err := p.host()
	if err != nil {
		return err
	}
	var in *preflight.Installer
	installs := !p.check && (p.yes || !p.json)
	if installs || len(p.sha256) > 0 {
		if in, err = p.installer(ctx, host); err != nil {
			return err
		}
	}
	intact := true
	if p.verify {
		if report.Verified, err = preflight.Verify(ctx, host.StateDir); err != nil {
			return err
		}
		intact = p.printVerified(report.Verified)
	}
	if report.Findings, err = preflight.Run(ctx, host); err != nil {
		return err
	}
	p.print(report.Findings)
	if installs {
		tried, err := p.install(ctx, in, &report)
		if err != nil {
			return errors.Join(err, p.printReport(report))
		}
		if tried {
			if report.Findings, err = preflight.Run(ctx, host); err != nil {
				return err
			}
			p.print(report.Findings)
		}
	}
	if err := p.printReport(report); err != nil {
		return err
	}
	return outcome(report, intact)
}

// printReport prints all of it, for programs.
func (p *preflightCmd) printReport(r preflightReport) error {
	if !p.json {
		return nil
	}
	r.Ready = preflight.Ready(r.Findings)
	return p.printJSON(r)
}

// outcome is the command's error, nil for a host that is ready.
func outcome(r preflightReport, intact bool) error {
	n := 0
	for _, f := range r.Findings {
		if f.Result == preflight.Missing {
			n++
		}
	}
	switch {
	case n == 1:
		return errors.New("this host is not ready: 1 dependency is missing")
	case n > 1:
		return fmt.Errorf("this host is not ready: %d dependencies are missing", n)
	case !intact:
		return errors.New("what was installed is not as it was: remove it, and have it installed again")
	}
	return nil
}

// host reads the configuration, or writes one before.
func (p *preflightCmd) host() (*preflight.Host, preflightReport, error) {
	report := preflightReport{Installed: []string{}, Failed: []string{}}
	program, err := os.Executable()
	if err != nil {
		return nil, report, err
	}
	state := &up{cli: p.cli, stateDir: p.stateDir}
	if p.init != "" {
		if err := p.writeConfig(state, &report); err != nil {
			return nil, report, err
		}
	}
	settings, warnings, err := config.Load(p.config)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !p.configGiven && p.init == "":
		settings = config.Default()
		p.say("There is no %s: the built-in settings are looked at (--init sandbox or --init nosandbox writes a file to begin with)", p.config)
	case err != nil:
		return nil, report, err
	default:
		report.Config = p.config
	}
	for _, w := range warnings {
		report.Warnings = append(report.Warnings, w.String())
		p.say("⚠️ Configuration key %s", w)
	}
	if len(p.nameservers) > 0 {
		settings.CNI.Nameservers = nil
	}
	for _, n := range p.nameservers {
		ip, err := netip.ParseAddr(n)
		if err != nil {
			return nil, report, fmt.Errorf("--cni_ns: %w", err)
		}
		settings.CNI.Nameservers = append(settings.CNI.Nameservers, ip)
	}
	dir, _, err := state.state(settings)
	if err != nil {
		return nil, report, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, report, err
	}
	url, options, err := p.conn.resolve()
	if err != nil {
		return nil, report, err
	}
	if settings.PublicServer != nil && p.conn.server == "" && p.conn.context == "" {
		url = "" // the node's own
	}
	return &preflight.Host{Settings: settings, StateDir: dir, Program: program, Version: version, Server: url, Options: options, JSDomain: p.conn.jsDomain}, report, nil
}

// writeConfig writes a configuration file where there is none.
func (p *preflightCmd) writeConfig(state *up, report *preflightReport) error {
	dir, _, err := state.state(config.Default())
	if err != nil {
		return err
	}
	if p.check {
		return errors.New("--init writes a file, and --check says that nothing is to be changed: keep one")
	}
	switch err := preflight.WriteNew(p.config, preflight.InitialConfig(p.init == "sandbox", dir)); {
	case errors.Is(err, fs.ErrExist):
		p.say("⚠️ %s is there already and is left as it is", p.config)
	case err != nil:
		return fmt.Errorf("write configuration: %w", err)
	default:
		report.Installed = append(report.Installed, "write "+p.config)
		p.say("✅ Wrote %s", p.config)
	}
	return nil
}

// say prints a line for people.
func (p *preflightCmd) say(format string, args ...any) {
	if !p.json {
		fmt.Fprintln(p.stdout, escapeLines(fmt.Sprintf(format, args...)))
	}
}

// some is the beginning of a list, for a heading.
func some(dirs []string) string {
	const most = 3
	if len(dirs) <= most {
		return strings.Join(dirs, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(dirs[:most], ", "), len(dirs)-most)
}

// indented prints a line of what --verbose adds.
func (p *preflightCmd) indented(text string) {
	if !p.json {
		fmt.Fprintln(p.stdout, "\t"+escapeLines(text))
	}
}

func (p *preflightCmd) print(found []preflight.Finding) {
	searched := map[string][]string{} // by group
	for _, f := range found {
		if searched[f.Group] == nil {
			searched[f.Group] = f.Searched
		}
	}
	group := ""
	for _, f := range found {
		if f.Result == preflight.NotNeeded && !p.verbose {
			continue
		}
		if f.Group != group {
			group = f.Group
			p.say("Validating - %s [%s]", group, some(searched[group]))
		}
		p.say("%s", f)
		if !p.verbose {
			continue
		}
		for _, dir := range f.Searched {
			p.indented("🔎 Searching - " + dir)
		}
		if f.Result == preflight.OK && f.Detail != "" {
			p.indented(f.Detail)
		}
	}
}

func (p *preflightCmd) printVerified(all []preflight.Verified) (intact bool) {
	intact = true
	p.say("Validating - Installed files")
	for _, v := range all {
		if v.Problem != "" {
			intact = false
			p.say("⛔ Changed - %s\n   what: %s", v.Path, v.Problem)
			continue
		}
		p.say("✅ Unchanged - %s", v.Path)
	}
	if len(all) == 0 {
		p.say("nothing was installed by nex")
	}
	return intact
}
