package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"nex/internal/preflight"
)

// installer is what would install, by the flags.
func (p *preflightCmd) installer(ctx context.Context, host *preflight.Host) (in *preflight.Installer, err error) {
	manifest := preflight.DefaultManifest()
	if p.manifest != "" {
		if manifest, err = preflight.LoadManifest(ctx, p.manifest); err != nil {
			return nil, err
		}
	}
	if p.from != "" {
		if p.from, err = filepath.Abs(p.from); err != nil {
			return nil, err
		}
	}
	in = &preflight.Installer{Host: host, Manifest: manifest, From: p.from, SHA256: maps.Clone(p.sha256), Version: p.installVersion, Progress: p.progress()}
	return in, in.CheckNames()
}

// install does what can be done about what is missing, and is agreed to. tried
// says whether anything may have changed.
func (p *preflightCmd) install(ctx context.Context, in *preflight.Installer, report *preflightReport) (tried bool, err error) {
	defer func() { err = errors.Join(err, in.Close()) }()
	for _, f := range report.Findings {
		wanted := f.Result == preflight.Missing || f.Result == preflight.Warning && p.yes
		if !wanted || !f.Installable() {
			continue
		}
		step, err := in.Step(f)
		if err != nil {
			p.notInstalled(report, f, err)
			continue
		}
		if f.Result == preflight.Warning && !step.Adds {
			continue // what is there is not replaced because it is doubtful
		}
		if err := p.agree(ctx, f, step); err != nil {
			return tried, err
		}
		tried = true
		p.say("   %s …", step.Text)
		if err := in.Install(ctx, step); err != nil {
			if ctx.Err() != nil {
				return tried, ctx.Err()
			}
			if errors.Is(err, preflight.ErrBusy) {
				return false, err
			}
			p.notInstalled(report, f, err)
			continue
		}
		report.Installed = append(report.Installed, step.Text)
		p.say("✅ Installed - %s", f.Name)
	}
	return tried, nil
}

// notInstalled tells of what could not be installed.
func (p *preflightCmd) notInstalled(report *preflightReport, f preflight.Finding, err error) {
	report.Failed = append(report.Failed, f.Name+": "+err.Error())
	sign := "⛔"
	if f.Result == preflight.Warning {
		sign = "⚠️"
	}
	p.say("%s Not installed - %s\n   what: %v", sign, f.Name, err)
}

// agree asks whether a step may be done. The end of input is no answer.
func (p *preflightCmd) agree(ctx context.Context, f preflight.Finding, s preflight.Step) error {
	if p.yes {
		return nil
	}
	if p.input == nil {
		p.input = bufio.NewReader(p.stdin)
	}
	fmt.Fprintf(p.stdout, "⛔ You are missing required dependencies for [%s], do you want to install? (%s) [y/N] ", escape(f.Name), escape(s.Text))
	answer := make(chan string, 1)
	go func() {
		line, err := p.input.ReadString('\n')
		if err != nil {
			line = "" // what is not finished is not meant
		}
		answer <- line
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case line := <-answer:
		if line == "y\n" || line == "Y\n" || line == "y\r\n" || line == "Y\r\n" {
			return nil
		}
		fmt.Fprintln(p.stdout)
		return errors.New("user canceled preflight: nothing more is installed (--yes agrees to all)")
	}
}

// progress tells about downloads: on terminals, and not all the time.
func (p *preflightCmd) progress() func(name string, have, of int64) {
	if p.json || !isTerminal(p.stderr) {
		return nil
	}
	last := time.Now()
	return func(name string, have, of int64) {
		if time.Since(last) < 500*time.Millisecond {
			return
		}
		last = time.Now()
		total := ""
		if of > 0 {
			total = " of " + humanize.IBytes(uint64(of))
		}
		fmt.Fprintf(p.stderr, "   %s: %s%s\n", name, humanize.IBytes(uint64(have)), total)
	}
}
