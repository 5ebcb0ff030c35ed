package tap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Run does what the environment and the standard input ask, as the Container
// Network Interface has it, and returns the exit code. Errors go to stdout, as
// JSON; results too.
func Run(stdout io.Writer) int {
	runtime.LockOSThread() // whose network namespace changes
	funcs := skel.CNIFuncs{Add: add, Del: del, Check: check}
	about := "nex: a tap device for a microVM, and all frames of an interface redirected to it"
	if err := skel.PluginMainFuncsWithError(funcs, version.All, about); err != nil {
		json.NewEncoder(stdout).Encode(err)
		return 1
	}
	return 0
}

// options are the arguments of one call.
type options struct {
	name     string // of the tap
	uid, gid int    // who may open it besides root
}

// parse reads CNI_ARGS, as in "TC_REDIRECT_TAP_UID=1000;…". What is not the
// plugin's is for others.
func parse(args string) (options, error) {
	o := options{name: "tap0"}
	for pair := range strings.SplitSeq(args, ";") {
		key, value, _ := strings.Cut(pair, "=")
		var err error
		switch key {
		case "TC_REDIRECT_TAP_NAME":
			o.name = value
			if value == "" || len(value) >= unix.IFNAMSIZ || strings.ContainsAny(value, "/ \t\n") || value == "." || value == ".." {
				err = fmt.Errorf("%.64q cannot be the name of an interface", value)
			}
		case "TC_REDIRECT_TAP_UID":
			o.uid, err = parseID(value)
		case "TC_REDIRECT_TAP_GID":
			o.gid, err = parseID(value)
		}
		if err != nil {
			return options{}, fmt.Errorf("%s: %w", key, err)
		}
	}
	return o, nil
}

func parseID(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}

// previous returns the result of the plugins before, in the newest form, and the
// version of the configuration, which the own result is to have.
func previous(stdin []byte) (*current.Result, string, error) {
	var conf types.PluginConf
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, "", fmt.Errorf("read the configuration: %w", err)
	}
	if conf.RawPrevResult == nil {
		return nil, "", fmt.Errorf("%s stands after a plugin that makes an interface, as ptp; here it is the first", Name)
	}
	if err := version.ParsePrevResult(&conf); err != nil {
		return nil, "", fmt.Errorf("read the result of the plugin before: %w", err)
	}
	result, err := current.NewResultFromResult(conf.PrevResult)
	return result, conf.CNIVersion, err
}

// add makes the tap and the redirection.
func add(args *skel.CmdArgs) error {
	o, err := parse(args.Args)
	if err != nil {
		return err
	}
	result, cniVersion, err := previous(args.StdinData)
	if err != nil {
		return err
	}
	ip, err := addressOf(result, args)
	if err != nil {
		return err
	}
	var tapMAC, mac string
	err = within(args.Netns, func() error {
		link, err := netlink.LinkByName(args.IfName)
		if err != nil {
			return fmt.Errorf("interface %s of the plugin before: %w", args.IfName, err)
		}
		mac = link.Attrs().HardwareAddr.String()
		made, err := connect(link, o)
		tapMAC = made.String()
		return err
	})
	if err != nil {
		return err
	}
	result.Interfaces = append(result.Interfaces,
		&current.Interface{Name: o.name, Mac: tapMAC, Sandbox: args.Netns},
		&current.Interface{Name: o.name, Mac: mac, Sandbox: args.ContainerID})
	result.IPs = append(result.IPs, &current.IPConfig{Interface: current.Int(len(result.Interfaces) - 1), Address: ip.Address, Gateway: ip.Gateway})
	return types.PrintResult(result, cniVersion)
}

// addressOf returns the one address of the interface to redirect.
func addressOf(result *current.Result, args *skel.CmdArgs) (*current.IPConfig, error) {
	var found *current.IPConfig
	for _, ip := range result.IPs {
		if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(result.Interfaces) {
			continue
		}
		if of := result.Interfaces[*ip.Interface]; of.Name != args.IfName || of.Sandbox != args.Netns {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("interface %s has several addresses; a microVM takes one", args.IfName)
		}
		found = ip
	}
	if found == nil {
		return nil, fmt.Errorf("the plugin before gave interface %s no address", args.IfName)
	}
	return found, nil
}

// connect makes a tap beside link, with all frames redirected, and returns its
// hardware address. Whatever fails leaves nothing.
func connect(link netlink.Link, o options) (mac net.HardwareAddr, err error) {
	tap := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: o.name, MTU: link.Attrs().MTU},
		Mode:      netlink.TUNTAP_MODE_TAP,
		Flags:     netlink.TUNTAP_ONE_QUEUE | netlink.TUNTAP_VNET_HDR | netlink.TUNTAP_NO_PI,
		Owner:     uint32(o.uid),
		Group:     uint32(o.gid),
	}
	if err := netlink.LinkAdd(tap); err != nil {
		return nil, fmt.Errorf("make tap %s: %w", o.name, err)
	}
	made, err := netlink.LinkByName(o.name)
	if err != nil {
		return nil, fmt.Errorf("tap %s: %w", o.name, err)
	}
	defer func() {
		if err != nil {
			netlink.LinkDel(made)
			netlink.QdiscDel(ingress(link))
		}
	}()
	if err := netlink.LinkSetMTU(made, link.Attrs().MTU); err != nil {
		return nil, fmt.Errorf("MTU of tap %s: %w", o.name, err)
	}
	for _, pair := range [][2]netlink.Link{{link, made}, {made, link}} {
		if err := redirect(pair[0], pair[1]); err != nil {
			return nil, err
		}
	}
	if err := netlink.LinkSetUp(made); err != nil {
		return nil, fmt.Errorf("bring up tap %s: %w", o.name, err)
	}
	return made.Attrs().HardwareAddr, nil
}

// redirect sends every frame that comes in by one interface out by another. It
// takes a u32 filter, which all kernels have that have any.
func redirect(from, to netlink.Link) error {
	name := from.Attrs().Name
	if err := netlink.QdiscAdd(ingress(from)); err != nil {
		return fmt.Errorf("ingress of %s: %w", name, err)
	}
	err := netlink.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: from.Attrs().Index, Parent: ingressHandle, Priority: 1, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{netlink.NewMirredAction(to.Attrs().Index)},
	})
	if err != nil {
		return fmt.Errorf("redirect %s to %s (the kernel needs cls_u32 and act_mirred): %w", name, to.Attrs().Name, err)
	}
	return nil
}

var ingressHandle = netlink.MakeHandle(0xffff, 0)

func ingress(link netlink.Link) *netlink.Ingress {
	return &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_INGRESS, Handle: ingressHandle}}
}

// del takes away what add made, or what there is of it.
func del(args *skel.CmdArgs) error {
	o, err := parse(args.Args)
	if err != nil {
		return err
	}
	if _, err := os.Stat(args.Netns); args.Netns == "" || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return within(args.Netns, func() error {
		tap, err := netlink.LinkByName(o.name)
		switch {
		case errors.As(err, &netlink.LinkNotFoundError{}):
		case err != nil:
			return err
		case tap.Type() != "tuntap":
			return fmt.Errorf("%s is no tap", o.name)
		default:
			if err := netlink.LinkDel(tap); err != nil {
				return fmt.Errorf("remove tap %s: %w", o.name, err)
			}
		}
		link, err := netlink.LinkByName(args.IfName)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := netlink.QdiscDel(ingress(link)); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("ingress of %s: %w", args.IfName, err)
		}
		return nil
	})
}

// check looks whether everything that add made is still there.
func check(args *skel.CmdArgs) error {
	o, err := parse(args.Args)
	if err != nil {
		return err
	}
	return within(args.Netns, func() error {
		var links [2]netlink.Link
		for i, name := range []string{args.IfName, o.name} {
			if links[i], err = netlink.LinkByName(name); err != nil {
				return fmt.Errorf("interface %s: %w", name, err)
			}
		}
		for i, from := range links {
			to := links[1-i].Attrs()
			filters, err := netlink.FilterList(from, ingressHandle)
			if err != nil {
				return fmt.Errorf("filters of %s: %w", from.Attrs().Name, err)
			}
			if !redirectsTo(filters, to.Index) {
				return fmt.Errorf("%s is not redirected to %s", from.Attrs().Name, to.Name)
			}
		}
		return nil
	})
}

func redirectsTo(filters []netlink.Filter, index int) bool {
	for _, f := range filters {
		u32, ok := f.(*netlink.U32)
		if !ok {
			continue
		}
		for _, action := range u32.Actions {
			if m, ok := action.(*netlink.MirredAction); ok && m.Ifindex == index {
				return true
			}
		}
	}
	return false
}

// within runs work in a network namespace. The process is the plugin, which ends
// after one call; its goroutine stays on one thread.
func within(path string, work func() error) error {
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	defer netns.Set(home)
	return work()
}
