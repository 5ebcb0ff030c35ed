package node

// restore brings back what an earlier process of this node ran. It does not wait:
// the workloads are listed from now on, and tried until they run. What the node
// may not run any more stays recorded, as the configuration may change again.
func (n *node) restore(entries []entry) {
	for _, e := range entries {
		slot, err := n.workloads.Reserve()
		if err == nil {
			spec, refused := n.readmit(e)
			if err = refused; err == nil {
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
// it. One that has ended by then is not recorded.
func (n *node) keep(e entry) error {
	s, ok := n.workloads.Get(e.Namespace, e.ID)
	if !ok {
		return nil
	}
	e.Name, e.SHA256 = s.Spec.Name, s.SHA256
	if err := n.journal.Keep(e); err != nil {
		return err
	}
	if _, ok := n.workloads.Get(e.Namespace, e.ID); !ok {
		n.journal.Ended(e.ID)
	}
	return nil
}
