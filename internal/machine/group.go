package machine

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"nex/internal/cgroup"
	"nex/internal/guest"
)

// endOfGroup bounds how long the processes of a machine may take to be gone
// after they were killed.
const endOfGroup = 5 * time.Second

// enclosure is the cgroup of a machine whose agent is a process of the host. The
// zero one is none.
type enclosure struct {
	group *cgroup.Group
	doors []*os.File // the agent's, until it has started
}

// enclose makes the cgroup of a machine, if the node has any.
func (p *Processes) enclose(id string) (enclosure, error) {
	if p.Groups == nil {
		return enclosure{}, nil
	}
	g, err := p.Groups.Make(id)
	if err != nil {
		return enclosure{}, err
	}
	e := enclosure{group: g}
	if e.doors, err = g.Work(); err != nil {
		e.abandon()
		return enclosure{}, err
	}
	return e, nil
}

// inherit returns what the agent gets: files, the first of which will have the
// given number, and a variable that says so.
func (e enclosure) inherit(first int) (files []*os.File, env []string) {
	if len(e.doors) == 0 {
		return nil, nil
	}
	numbers := make([]string, len(e.doors))
	for i := range e.doors {
		numbers[i] = fmt.Sprint(first + i)
	}
	return e.doors, []string{guest.WorkVariable + "=" + strings.Join(numbers, ",")}
}

// take puts an agent that has just started into the cgroup.
func (e enclosure) take(pid int) error {
	cgroup.CloseAll(e.doors)
	if e.group == nil {
		return nil
	}
	return e.group.Add(pid)
}

// end kills what is left in the cgroup and removes it.
func (e enclosure) end() error {
	if e.group == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endOfGroup)
	defer cancel()
	if err := e.group.Kill(ctx); err != nil {
		return err
	}
	return e.group.Remove(ctx)
}

// abandon removes the cgroup of a machine that did not start.
func (e enclosure) abandon() {
	cgroup.CloseAll(e.doors)
	_ = e.end() // the launch's own error is the one to report
}
