package config

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Status says what a key does in this Nex.
type Status string

// What a key can do.
const (
	Works Status = "works"
	Later Status = "has no effect yet"
	Never Status = "has no meaning in this Nex"
	Alias Status = "old name"
)

// Kind is the JSON type of a key, in words that fit after "must be".
type Kind string

// The JSON types of keys.
const (
	Bool         Kind = "true or false"
	Natural      Kind = "a whole number of at least 0"
	Positive     Kind = "a whole number above 0"
	Number       Kind = "a number above 0"
	Milliseconds Kind = "a whole number of milliseconds above 0"
	Text         Kind = "a string"
	Texts        Kind = "a list of strings"
	List         Kind = "a list" // of what the table lists below it
	TextMap      Kind = "an object of strings"
	Object       Kind = "an object" // with the keys that the table lists below it
	Free         Kind = "an object of any keys"
)

// Key describes one key of the configuration file.
type Key struct {
	Path   string `json:"key"` // dots between names, [] for every element of a list
	Kind   Kind   `json:"type"`
	Status Status `json:"effect"`
	Note   string `json:"note"` // what it does; of a Never key why not; of an Alias the key it stands for

	field func(*draft) any // where a key that works puts its value
}

// Keys lists every key that the configuration file may hold. A row whose
// status is not Works speaks for all rows below it.
//
// The table is the whole truth: detection of unknown keys, type checks,
// warnings and the reference text come from it.
func Keys() []Key { return slices.Concat(nodeKeys(), autostartKeys(), hostKeys()) }

// nodeKeys lists the keys of the node itself.
func nodeKeys() []Key {
	return []Key{
		// Machines
		{"machine_pool_size", Natural, Works, "machines kept ready; 0 starts them on demand (default 1)", func(d *draft) any { return &d.PoolSize }},
		{"max_machines", Natural, Works, "machines at once, those kept ready among them (default 0, any number)", func(d *draft) any { return &d.MaxMachines }},
		{"sandbox", Text, Works, "microvm, firecracker, qemu, os or none (default microvm)", func(d *draft) any { return &d.sandbox }},
		{"no_sandbox", Bool, Works, `true is the same as "sandbox": "none"`, func(d *draft) any { return &d.noSandbox }},
		{"os_sandbox.network", Text, Works, `network of the machines of sandbox os: "none", or "host" for services that connect or listen (default "none")`, func(d *draft) any { return (*string)(&d.OSNetwork) }},
		{"best_effort", Bool, Works, "go on without those parts of the sandbox that this host does not have, and say so in the tag nex.sandbox.missing; take workloads also where limits they ask for cannot be kept in full (default false)", func(d *draft) any { return &d.BestEffort }},
		{"agent_path", Text, Works, "the nex-agent binary (default: beside nex, then in PATH)", func(d *draft) any { return &d.AgentPath }},
		{"agent_handshake_timeout_ms", Milliseconds, Works, "how long a started agent may take to say hello (default 5000; 60000 where QEMU emulates the processor)", func(d *draft) any { return (*milliseconds)(&d.HandshakeTimeout) }},
		{"agent_ping_timeout_ms", Milliseconds, Works, "how long an agent may take to give the sign of life it is asked for every 5 s, before its machine is destroyed (default 5000, and at least 2000 whatever is given)", func(d *draft) any { return (*milliseconds)(&d.PingTimeout) }},
		{"machine_template.vcpu_count", Positive, Works, "virtual processors of a microVM (default 1)", func(d *draft) any { return &d.Template.VCPUs }},
		{"machine_template.memsize_mib", Positive, Works, "memory of a microVM in MiB (default 256)", func(d *draft) any { return &d.Template.MemoryMiB }},
		{"machine_template.disk_mib", Positive, Works, "size in MiB of the disk of its own that a microVM writes to (default 1024; takes what is written)", func(d *draft) any { return &d.Template.DiskMiB }},
		{"rate_limiters.bandwidth.size", Natural, Works, "bytes that the disk of a microVM of Firecracker, and each direction of its network, may move in refill_time (default no bound)", func(d *draft) any { return &d.RateLimiters.Bandwidth.Size }},
		{"rate_limiters.bandwidth.refill_time", Natural, Works, "milliseconds", func(d *draft) any { return &d.RateLimiters.Bandwidth.RefillTime }},
		{"rate_limiters.bandwidth.one_time_burst", Natural, Works, "bytes besides, once (default 0)", func(d *draft) any { return &d.RateLimiters.Bandwidth.OneTimeBurst }},
		{"rate_limiters.iops.size", Natural, Works, "operations that the disk of a microVM of Firecracker, and each direction of its network, may move in refill_time (default no bound)", func(d *draft) any { return &d.RateLimiters.IOPS.Size }},
		{"rate_limiters.iops.refill_time", Natural, Works, "milliseconds", func(d *draft) any { return &d.RateLimiters.IOPS.RefillTime }},
		{"rate_limiters.iops.one_time_burst", Natural, Works, "operations besides, once (default 0)", func(d *draft) any { return &d.RateLimiters.IOPS.OneTimeBurst }},
		{"jailer.enabled", Bool, Works, "run Firecracker in its jailer, which takes root (default true where the node is root)", func(d *draft) any { return &d.jailer }},
		{"jailer.uid", Natural, Works, "user of the host that Firecracker runs as (default another one for each machine)", func(d *draft) any { return &d.Jailer.UID }},
		{"jailer.gid", Natural, Works, "group, likewise", func(d *draft) any { return &d.Jailer.GID }},
		{"jailer.chroot_base", Text, Works, "directory for the root directories of machines (default in the state directory)", func(d *draft) any { return &d.Jailer.ChrootBase }},
		{"jailer.cgroup", Texts, Works, "settings of cgroups of version 1 that the jailer makes, as in cpuset.cpus=0-3", func(d *draft) any { return &d.Jailer.Cgroup }},
		{"qemu.accel", Text, Works, "how QEMU runs the processor of a microVM: kvm, tcg (emulated, slower) or auto (default auto: kvm where it works)", func(d *draft) any { return &d.QEMU.Accel }},
		{"qemu.network", Text, Works, "network of QEMU's microVMs: tap (takes root), user (QEMU's own), none or auto (default auto: tap where it works, else user)", func(d *draft) any { return &d.QEMU.Network }},
		{"bin_path", Texts, Works, "directories where firecracker, jailer and qemu-system-x86_64 are looked for before PATH; the first is where preflight puts them (default: bin in the state directory)", func(d *draft) any { return &d.BinPath }},
		{"default_resource_dir", Text, Works, "directory of vmlinux, initramfs and rootfs.ext4 (default: the image that nex image build made)", func(d *draft) any { return &d.ResourceDir }},
		{"kernel_filepath", Text, Works, "kernel of a microVM (default: vmlinux there)", func(d *draft) any { return &d.Kernel }},
		{"initramfs_filepath", Text, Works, "initramfs of a microVM (default: initramfs there)", func(d *draft) any { return &d.Initramfs }},
		{"rootfs_filepath", Text, Works, "root file system of a microVM, which is only read (default: rootfs.ext4 there)", func(d *draft) any { return &d.RootFS }},
		{"kernel_file", Text, Alias, "kernel_filepath", nil},
		{"kernel_path", Text, Alias, "kernel_filepath", nil},
		{"rootfs_file", Text, Alias, "rootfs_filepath", nil},
		{"rootfs_path", Text, Alias, "rootfs_filepath", nil},

		// Network of the machines
		{"cni.bin_path", Texts, Works, "directories of the CNI plugins ptp and host-local; the first is where preflight puts them (default: bin in the state directory, then PATH, /opt/cni/bin and /usr/lib/cni)", func(d *draft) any { return &d.CNI.BinPath }},
		{"cni.conf_dir", Text, Works, "directory of the CNI configurations (default /etc/cni/conf.d)", func(d *draft) any { return &d.CNI.ConfDir }},
		{"cni.interface_name", Text, Works, "the plugins' interface in a microVM's network namespace (default veth0)", func(d *draft) any { return &d.CNI.InterfaceName }},
		{"cni.network_name", Text, Works, "name of the network; NAME.conflist in conf_dir is taken if it exists (default fcnet)", func(d *draft) any { return &d.CNI.NetworkName }},
		{"cni.subnet", Text, Works, "network of the microVMs; its first address is the host's (default 192.168.127.0/24)", func(d *draft) any { return &d.CNI.Subnet }},
		{"cni.nameservers", Texts, Works, "name servers of the microVMs (default those of the host that they can reach)", func(d *draft) any { return &d.CNI.Nameservers }},
		{"egress.allow", Texts, Works, `what services in microVMs may reach: "nats", "dns", or HOST:PORT as in "10.0.0.0/8:5432" (default nats and dns)`, func(d *draft) any { return &d.Egress }},
		{"egress.nats", Text, Works, `NATS as services in microVMs reach it, HOST:PORT, which "nats" then allows (default port 4222 of the host's address in the subnet)`, func(d *draft) any { return &d.EgressNATS }},
		{"internal_node_host", Text, Never, "node and agents talk over a private stream, there is no internal NATS", nil},
		{"internal_node_port", Natural, Never, "node and agents talk over a private stream, there is no internal NATS", nil},
		{"preserve_network", Bool, Never, "a network reset removes only what the node made", nil},

		// What the node takes
		{"workload_types", Texts, Works, "native, v8, wasm (default all)", func(d *draft) any { return &d.WorkloadTypes }},
		{"valid_issuers", Texts, Works, "public nkeys whose workloads are taken (default any)", func(d *draft) any { return &d.ValidIssuers }},
		{"requester_public_keys", Texts, Alias, "valid_issuers", nil},
		{"deny_trigger_subjects", Texts, Works, "subjects that no trigger may overlap, besides $SYS.>, $JS.>, $KV.>, $O.>, $NEX.>, _INBOX.>", func(d *draft) any { return &d.DenyTriggerSubjects }},
		{"require_digest", Bool, Works, "refuse requests whose claims do not hold the artifact's SHA-256, as those of Nex 0.2.7 (default false)", func(d *draft) any { return &d.RequireDigest }},
		{"require_bound_claims", Bool, Works, "refuse claims that are not for one request to this node, as those of Nex 0.2.7 (default false)", func(d *draft) any { return &d.RequireBoundClaims }},
		{"replay_window_ms", Milliseconds, Works, "how long a request is remembered whose claims do not expire, so that it is not taken twice (default 60000)", func(d *draft) any { return (*milliseconds)(&d.ReplayWindow) }},
		{"admin_issuers", Texts, Works, "public nkeys that may put the node into lame duck mode (default anybody who may publish there)", func(d *draft) any { return &d.AdminIssuers }},
		{"workload_nats_servers", Texts, Works, `NATS servers that requests may name in trigger_connection and host_services, as host:port with * and ?; [] for none (default any)`, func(d *draft) any { return &d.WorkloadServers }},
		{"node_limits.max_workloads", Natural, Works, "workloads at once (default 0, unlimited)", func(d *draft) any { return &d.Limits.MaxWorkloads }},
		{"node_limits.max_total_bytes", Natural, Works, "artifact bytes of all workloads together (default 0, unlimited)", func(d *draft) any { return &d.Limits.MaxTotalBytes }},
		{"node_limits.max_workload_bytes", Natural, Works, "artifact bytes of one workload (default 0, unlimited)", func(d *draft) any { return &d.Limits.MaxWorkloadBytes }},

		// What workloads get that do not ask, and the most they may ask for
		{"function_timeout_ms", Positive, Works, "how long one function call may take (default 4000)", func(d *draft) any { return &d.Defaults.FunctionTimeoutMS }},
		{"function_memory_mib", Positive, Works, "memory of one instance of a function (default 128)", func(d *draft) any { return &d.Defaults.FunctionMemoryMiB }},
		{"max_concurrency", Natural, Works, "calls of one function that run at once (default 0, as the engine likes)", func(d *draft) any { return &d.Defaults.MaxConcurrency }},
		{"broadcast", Bool, Works, "every copy of a function answers every message (default false)", func(d *draft) any { return &d.Defaults.Broadcast }},
		{"stop_grace_ms", Positive, Works, "how long a service may take to end before it is killed (default 10000)", func(d *draft) any { return &d.Defaults.StopGraceMS }},
		{"engine", Text, Works, "v8 or quickjs, for JavaScript functions (default v8 where the agent has it)", func(d *draft) any { return &d.Defaults.Engine }},
		{"resources.cpus", Number, Works, "processors a service may keep busy, as in 0.5 (default no bound)", func(d *draft) any { return &d.Defaults.Resources.CPUs }},
		{"resources.memory_mib", Positive, Works, "memory of a service (default no bound)", func(d *draft) any { return &d.Defaults.Resources.MemoryMiB }},
		{"resources.pids", Positive, Works, "processes and threads of a service (default no bound)", func(d *draft) any { return &d.Defaults.Resources.PIDs }},
		{"resources.files", Positive, Works, "open files of each process of a service (default no bound)", func(d *draft) any { return &d.Defaults.Resources.Files }},
		{"resources.disk_mib", Positive, Works, "what the directory of a service may hold (default no bound)", func(d *draft) any { return &d.Defaults.Resources.DiskMiB }},
		{"restart.policy", Text, Works, "never, on-failure or always: when a service is started again (default never; essential means on-failure)", func(d *draft) any { return &d.Defaults.Restart.Policy }},
		{"restart.max_attempts", Natural, Works, "restarts in a row (default 0, any number)", func(d *draft) any { return &d.Defaults.Restart.MaxAttempts }},
		{"restart.reset_ms", Positive, Works, "how long a service must have been healthy for its failures to be forgotten (default 10000)", func(d *draft) any { return &d.Defaults.Restart.ResetMS }},
		{"ceilings.function_timeout_ms", Positive, Works, "(default 600000)", func(d *draft) any { return &d.Ceilings.FunctionTimeoutMS }},
		{"ceilings.function_memory_mib", Positive, Works, "(default 2048)", func(d *draft) any { return &d.Ceilings.FunctionMemoryMiB }},
		{"ceilings.max_concurrency", Positive, Works, "(default 1000; what is given here goes for those too that do not ask)", func(d *draft) any { return &d.Ceilings.MaxConcurrency }},
		{"ceilings.broadcast", Bool, Works, "false refuses functions with broadcast (default true)", func(d *draft) any { return &d.Ceilings.Broadcast }},
		{"ceilings.stop_grace_ms", Positive, Works, "(default 60000)", func(d *draft) any { return &d.Ceilings.StopGraceMS }},
		{"ceilings.resources.cpus", Number, Works, "(as those below: default none; what is given here goes for those too that do not ask)", func(d *draft) any { return &d.Ceilings.Resources.CPUs }},
		{"ceilings.resources.memory_mib", Positive, Works, "", func(d *draft) any { return &d.Ceilings.Resources.MemoryMiB }},
		{"ceilings.resources.pids", Positive, Works, "", func(d *draft) any { return &d.Ceilings.Resources.PIDs }},
		{"ceilings.resources.files", Positive, Works, "", func(d *draft) any { return &d.Ceilings.Resources.Files }},
		{"ceilings.resources.disk_mib", Positive, Works, "", func(d *draft) any { return &d.Ceilings.Resources.DiskMiB }},
		{"ceilings.restart.max_attempts", Positive, Works, "", func(d *draft) any { return &d.Ceilings.Restart.MaxAttempts }},
		{"ceilings.restart.reset_ms", Positive, Works, "(default 3600000)", func(d *draft) any { return &d.Ceilings.Restart.ResetMS }},

		// The node itself
		{"tags", TextMap, Works, "labels of this node; node_name is its name", func(d *draft) any { return &d.Tags }},
		{"state_dir", Text, Works, "directory of the node's identity and records", func(d *draft) any { return &d.StateDir }},
		{"pid_filepath", Text, Works, "file that holds the node's process id while it runs (default none)", func(d *draft) any { return &d.PidFile }},
		{"public_nats_server", Free, Works, "options of a NATS server to run in the node: server_name, addr (default 127.0.0.1), port (default 4222), jetstream, store_dir, and all others that nats-server has in JSON", func(d *draft) any { return &d.PublicServer }},
		{"otlp_exporter_url", Text, Later, "host:port that traces are sent to", nil},
		{"otel_metrics", Bool, Later, "collect metrics", nil},
		{"otel_metrics_port", Natural, Later, "port of the metrics endpoint", nil},
		{"otel_metrics_exporter", Text, Later, "file or prometheus", nil},
		{"otel_traces", Bool, Later, "collect traces", nil},
		{"otel_traces_exporter", Text, Later, "file, grpc or http", nil},
	}
}

// hostKeys lists the keys of the services that the node offers to workloads.
func hostKeys() []Key {
	return []Key{
		{"host_services", Object, Works, "services that the node offers to workloads", nil},
		{"host_services.nats_url", Text, Works, "NATS server behind the services (default: the node's)", func(d *draft) any { return &d.hostAccess.URL }},
		{"host_services.nats_user_jwt", Text, Works, "JWT of the user there", func(d *draft) any { return &d.hostAccess.JWT }},
		{"host_services.nats_user_seed", Text, Works, "seed of the user there", func(d *draft) any { return &d.hostAccess.Seed }},
		{"host_services.max_concurrency", Positive, Works, "calls of one workload under way at a time (default 256)", func(d *draft) any { return &d.Host.MaxConcurrency }},
		{"host_services.calls_per_second", Positive, Works, "calls of one workload in a second (default no limit)", func(d *draft) any { return &d.Host.RatePerSecond }},
		{"host_services.services.kv.enabled", Bool, Works, "(default true)", func(d *draft) any { return (*inverted)(&d.Host.KV.Disabled) }},
		{"host_services.services.kv.config.bucket_name", Text, Works, "with ${namespace} and ${workload_name} (default hs_${namespace}_${workload_name}_kv)", func(d *draft) any { return &d.Host.KV.BucketName }},
		{"host_services.services.kv.config.jit_provision", Bool, Works, "make a bucket when it is first used (default true)", func(d *draft) any { return (*inverted)(&d.Host.KV.NoProvision) }},
		{"host_services.services.kv.config.max_bytes", Natural, Works, "of a bucket (default 67108864)", func(d *draft) any { return &d.Host.KV.MaxBytes }},
		{"host_services.services.kv.config.storage", Text, Works, "file or memory (default file)", func(d *draft) any { return &d.Host.KV.Storage }},
		{"host_services.services.kv.config.replicas", Positive, Works, "of a bucket, 1 to 5 (default 1)", func(d *draft) any { return &d.Host.KV.Replicas }},
		{"host_services.services.kv.config.ttl_ms", Milliseconds, Works, "how long values are kept (default for ever)", func(d *draft) any { return (*milliseconds)(&d.Host.KV.TTL) }},
		{"host_services.services.kv.config.history", Positive, Works, "values kept of a key (default 1)", func(d *draft) any { return &d.Host.KV.History }},
		{"host_services.services.objectstore.enabled", Bool, Works, "(default true)", func(d *draft) any { return (*inverted)(&d.Host.ObjectStore.Disabled) }},
		{"host_services.services.objectstore.config.bucket_name", Text, Works, "as for kv (default hs_${namespace}_${workload_name}_obj)", func(d *draft) any { return &d.Host.ObjectStore.BucketName }},
		{"host_services.services.objectstore.config.jit_provision", Bool, Works, "as for kv", func(d *draft) any { return (*inverted)(&d.Host.ObjectStore.NoProvision) }},
		{"host_services.services.objectstore.config.max_bytes", Natural, Works, "as for kv", func(d *draft) any { return &d.Host.ObjectStore.MaxBytes }},
		{"host_services.services.objectstore.config.storage", Text, Works, "as for kv", func(d *draft) any { return &d.Host.ObjectStore.Storage }},
		{"host_services.services.objectstore.config.replicas", Positive, Works, "as for kv", func(d *draft) any { return &d.Host.ObjectStore.Replicas }},
		{"host_services.services.objectstore.config.ttl_ms", Milliseconds, Works, "how long objects are kept (default for ever)", func(d *draft) any { return (*milliseconds)(&d.Host.ObjectStore.TTL) }},
		{"host_services.services.messaging.enabled", Bool, Works, "(default true)", func(d *draft) any { return (*inverted)(&d.Host.Messaging.Disabled) }},
		{"host_services.services.messaging.config.request_timeout_ms", Milliseconds, Works, "of requests that do not say (default 5000)", func(d *draft) any { return (*milliseconds)(&d.Host.Messaging.RequestTimeout) }},
		{"host_services.services.messaging.config.request_many_timeout_ms", Milliseconds, Works, "likewise (default 1000)", func(d *draft) any { return (*milliseconds)(&d.Host.Messaging.RequestManyTimeout) }},
		{"host_services.services.messaging.config.allow", Texts, Works, "subjects that may be sent to (default all but the denied)", func(d *draft) any { return &d.Host.Messaging.Allow }},
		{"host_services.services.messaging.config.deny", Texts, Works, "subjects that may not, besides $> and _INBOX.>", func(d *draft) any { return &d.Host.Messaging.Deny }},
		{"host_services.services.http.enabled", Bool, Works, "(default true)", func(d *draft) any { return (*inverted)(&d.Host.HTTP.Disabled) }},
		{"host_services.services.http.config.allow", Texts, Works, "hosts and CIDRs that may be reached besides public addresses, as in *.example.org or 10.0.0.0/8", func(d *draft) any { return &d.Host.HTTP.Allow }},
		{"host_services.services.http.config.deny", Texts, Works, "hosts and CIDRs that may not be reached, whatever allows them", func(d *draft) any { return &d.Host.HTTP.Deny }},
		{"host_services.services.http.config.timeout_ms", Milliseconds, Works, "of calls that do not say (default 10000)", func(d *draft) any { return (*milliseconds)(&d.Host.HTTP.Timeout) }},
		{"host_services.services.http.config.max_body_bytes", Positive, Works, "of a response (default 16777216)", func(d *draft) any { return &d.Host.HTTP.MaxBody }},
	}
}

// WriteReference prints the table of all keys for people to read.
func WriteReference(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tTYPE\tEFFECT\tNOTE")
	for _, k := range Keys() {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", k.Path, k.Kind, k.Status, k.Note)
	}
	return t.Flush()
}
