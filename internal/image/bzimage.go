package image

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// maxKernel bounds a kernel, compressed or not, in bytes.
const maxKernel = 256 << 20

// Places in the header of a bzImage; see "The Linux/x86 Boot Protocol" in the
// kernel's documentation.
const (
	atSetupSectors  = 0x1f1
	atHeaderMagic   = 0x202
	atVersion       = 0x206
	atPayload       = 0x248
	atPayloadLength = 0x24c
	headerEnd       = 0x250
	sector          = 512
	leastVersion    = 0x0208 // the first with a payload that can be found
)

// vmlinux returns the ELF kernel in file, which is one or is a bzImage that has
// one inside.
func vmlinux(file []byte) ([]byte, error) {
	if bytes.HasPrefix(file, []byte(elf.ELFMAG)) {
		return file, checkKernel(file)
	}
	payload, err := payloadOf(file)
	if err != nil {
		return nil, err
	}
	kernel, err := unpack(payload)
	if err != nil {
		return nil, fmt.Errorf("unpack the kernel: %w", err)
	}
	return kernel, checkKernel(kernel)
}

// payloadOf returns the compressed kernel in a bzImage.
func payloadOf(file []byte) ([]byte, error) {
	if len(file) < headerEnd || string(file[atHeaderMagic:atHeaderMagic+4]) != "HdrS" {
		return nil, errors.New("neither an ELF kernel (vmlinux) nor a bzImage (vmlinuz)")
	}
	if v := binary.LittleEndian.Uint16(file[atVersion:]); v < leastVersion {
		return nil, fmt.Errorf("a bzImage of boot protocol %d.%02d, which is older than 2.08", v>>8, v&0xff)
	}
	sectors := int64(file[atSetupSectors])
	if sectors == 0 {
		sectors = 4 // as the protocol has it
	}
	from := (sectors+1)*sector + int64(binary.LittleEndian.Uint32(file[atPayload:]))
	length := int64(binary.LittleEndian.Uint32(file[atPayloadLength:]))
	if length < 8 || from+length > int64(len(file)) {
		return nil, fmt.Errorf("a bzImage that is cut off: its kernel is %d bytes at %d, of %d in all", length, from, len(file))
	}
	return file[from : from+length], nil
}

// unpack decompresses a kernel. The kernel's build appends the size of what was
// compressed, but for gzip, which has it at its end anyway.
func unpack(payload []byte) ([]byte, error) {
	body := payload[:len(payload)-4]
	size := int64(binary.LittleEndian.Uint32(payload[len(payload)-4:]))
	if size > maxKernel {
		return nil, fmt.Errorf("it has %d bytes, more than %d", size, maxKernel)
	}
	var r io.Reader
	var err error
	switch {
	case bytes.HasPrefix(payload, []byte{0x02, 0x21, 0x4c, 0x18}):
		return unpackLZ4(body[4:], size)
	case bytes.HasPrefix(payload, []byte{0x1f, 0x8b}):
		r, err = gzip.NewReader(bytes.NewReader(payload))
	case bytes.HasPrefix(payload, []byte("BZh")):
		r = bzip2.NewReader(bytes.NewReader(body))
	case bytes.HasPrefix(payload, []byte("\xfd7zXZ\x00")):
		r, err = xz.ReaderConfig{SingleStream: true, DictCap: maxDictionary}.NewReader(bytes.NewReader(body))
	case bytes.HasPrefix(payload, []byte{0x5d, 0, 0}):
		r, err = lzma.NewReader(bytes.NewReader(body))
	case bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var d *zstd.Decoder
		if d, err = zstd.NewReader(bytes.NewReader(body), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDictionary)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		return nil, fmt.Errorf("it is compressed in a way that is not known (it begins with % x; lz4, gzip, zstd, xz, bzip2 and lzma are)", payload[:4])
	}
	if err != nil {
		return nil, err
	}
	kernel, err := io.ReadAll(io.LimitReader(r, size+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(kernel)) != size:
		return nil, fmt.Errorf("it has not the %d bytes it says", size)
	}
	return kernel, nil
}

// maxDictionary bounds what a decompressor may look back on, in bytes.
const maxDictionary = 128 << 20

// legacyBlock is what each block of the legacy frame of LZ4 unpacks to at most.
const legacyBlock = 8 << 20

// unpackLZ4 decompresses the blocks of a legacy frame, each of which comes with
// its length.
func unpackLZ4(body []byte, size int64) ([]byte, error) {
	kernel := make([]byte, 0, min(size, legacyBlock))
	block := make([]byte, legacyBlock)
	for int64(len(kernel)) < size {
		if len(body) < 4 {
			return nil, fmt.Errorf("it ends after %d of %d bytes", len(kernel), size)
		}
		n := int64(binary.LittleEndian.Uint32(body))
		body = body[4:]
		if n > int64(len(body)) {
			return nil, fmt.Errorf("a block of %d bytes, where %d are left", n, len(body))
		}
		got, err := lz4.UncompressBlock(body[:n], block)
		if err != nil {
			return nil, err
		}
		if got == 0 {
			return nil, errors.New("an empty block")
		}
		kernel = append(kernel, block[:got]...)
		body = body[n:]
	}
	if int64(len(kernel)) > size {
		return nil, fmt.Errorf("it has more than the %d bytes it says", size)
	}
	return kernel, nil
}

// checkKernel refuses what no VMM boots here.
func checkKernel(kernel []byte) error {
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		return fmt.Errorf("the kernel is not an ELF file: %w", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 || f.Type != elf.ET_EXEC {
		return fmt.Errorf("the kernel is an ELF file of %s, %s, %s, not an executable for amd64", f.Class, f.Machine, f.Type)
	}
	return nil
}
