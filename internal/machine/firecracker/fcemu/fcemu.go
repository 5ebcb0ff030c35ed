// Package fcemu is test support: two programs that pass for Firecracker and its
// jailer on hosts without KVM. A test binary is both of them, under their names
// (see [Shim] and [Install]).
//
// "firecracker" serves Firecracker's API on a Unix socket. Each request is held
// against the description of the API that comes with firecracker-go-sdk, with no
// field beyond it, and against what Firecracker takes before and after the start;
// then QEMU boots the machine. "jailer" checks its arguments and what is in the
// root directory, and runs the other one there, without a change of root: QEMU is
// outside.
//
// What it cannot show: Firecracker's devices, its rate limiters and seccomp
// filters, KVM, and AF_VSOCK in the guest, which QEMU has not without the host's help: the guest
// has a virtio-serial port nex.link instead, which is connected to the socket that a
// connection to port 1024 of the host would go to. Texts of errors are like
// Firecracker's, not the same.
package fcemu
