// Command nex-init is the first program of a microVM: the kernel starts it from
// the initramfs. It loads the kernel's modules, puts the machine's own disk over
// the read-only root file system, and becomes the program that the image is
// for. It is of no use by hand, and runs on Linux only. "nex image build" puts it into images.
package main
