package node

import "nex/internal/workload"

// restore brings back what an earlier process of this node ran. It does not wait:
// the workloads are listed from now on, and tried until they run. What the node
// may not run any more stays recorded, as the configuration may change again.
func (n *node) restore(entries []entry) {
	for _, e := range entries {
		slot, err := n.workloads.Reserve()
		if err == nil {
			c := n.candidate(e.Namespace, e.Request)
			c.restored = true
			var spec workload.Spec
			if spec, err = n.admit(c); err == nil {
				n.workloads.Restore(slot, e.ID, spec, e.SHA256, e.Restarts)
			}
			slot.Release()
		}
		if err != nil {
			n.log.Error("A workload is not brought back: it is refused now", "namespace", e.Namespace, "name", e.Name, "id", e.ID, "error", brief(err))
		}
	}
}

// keep records a workload that has just been deployed, before anybody hears of
// it. One that has ended by then is not recorded, nor is one that the
// configuration starts each time.
func (n *node) keep(c *candidate, id string) error {
	s, ok := n.workloads.Get(c.namespace, id)
	if !ok || c.own {
		return nil
	}
	if err := n.journal.Keep(entry{ID: id, Namespace: c.namespace, Name: s.Spec.Name, SHA256: s.SHA256, Request: c.request}); err != nil {
		return err
	}
	if _, ok := n.workloads.Get(c.namespace, id); !ok {
		n.workloads.Forget(id) // nobody told the journal after it was recorded
	}
	return nil
}
