package config

import (
	"fmt"
	"regexp"

	"nex/internal/vmnet"
)

var (
	networkName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
	interfaceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)
)

// network checks the settings of the network of microVMs.
func network(cfg Config) error {
	if n := cfg.CNI.NetworkName; n != "" && !networkName.MatchString(n) {
		return fmt.Errorf(`"cni.network_name" cannot be %.64q`, n)
	}
	if n := cfg.CNI.InterfaceName; n != "" && !interfaceName.MatchString(n) {
		return fmt.Errorf(`"cni.interface_name" cannot be %.64q: at most 15 letters and digits`, n)
	}
	if p := cfg.CNI.Subnet; p.IsValid() {
		if err := vmnet.CheckSubnet(p); err != nil {
			return fmt.Errorf(`"cni.subnet": %w`, err)
		}
	}
	for i, a := range cfg.CNI.Nameservers {
		if err := vmnet.CheckNameserver(a); err != nil {
			return fmt.Errorf(`"cni.nameservers[%d]": %w`, i, err)
		}
	}
	for i, s := range cfg.Egress {
		if _, err := vmnet.ParseRule(s); err != nil {
			return fmt.Errorf(`"egress.allow[%d]": %w`, i, err)
		}
	}
	if cfg.EgressNATS != "" {
		if err := vmnet.CheckNATS(cfg.EgressNATS); err != nil {
			return fmt.Errorf(`"egress.nats": %w`, err)
		}
	}
	return nil
}
