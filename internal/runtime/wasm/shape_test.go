package wasm

import (
	"bytes"
	"testing"
)

// Lists and lengths that are not there would make the engine allocate
// gigabytes.
func TestWellFormedRefuses(t *testing.T) {
	huge := "\xff\xff\xff\xff\x0f" // 2^32-1
	for name, c := range map[string]struct {
		id   byte
		body string
	}{
		"types":                  {typeSection, huge},
		"parameters":             {typeSection, "\x01\x60" + huge},
		"imports":                {importSection, huge + "00000"},
		"import name":            {importSection, "\x01" + huge},
		"functions":              {functionSection, huge},
		"more than 2^32":         {functionSection, "\x01\xff\xff\xff\xff\x1f"},
		"exports":                {exportSection, huge},
		"globals":                {globalSection, huge},
		"global expression":      {globalSection, "\x01\x7f\x00\x41\xff\xff"},
		"elements":               {elementSection, huge},
		"element functions":      {elementSection, "\x01\x01\x00" + huge},
		"element expressions":    {elementSection, "\x01\x05\x70" + huge},
		"code":                   {codeSection, huge},
		"function length":        {codeSection, "\x01" + huge},
		"locals":                 {codeSection, "\x01\x08\x01" + huge + "\x7f\x0b"},
		"local groups":           {codeSection, "\x01\x06" + huge + "\x0b"},
		"data":                   {dataSection, huge},
		"data length":            {dataSection, "\x01\x01" + huge},
		"names":                  {customSection, "\x04name\x01\x05" + huge},
		"local names":            {customSection, "\x04name\x02\x07\x01\x00" + huge},
		"names beyond their end": {customSection, "\x04name\x01\x02\x01\x00\x05hello"},
		"custom name":            {customSection, huge},
		"too long":               {startSection, "\x00\x00"},
		"too short":              {startSection, ""},
	} {
		if wellFormed(c.id, []byte(c.body)) {
			t.Errorf("%s: %q passes", name, c.body)
		}
	}
}

func TestWellFormedAccepts(t *testing.T) {
	for name, c := range map[string]struct {
		id   byte
		body string
	}{
		"empty list":         {typeSection, "\x00"},
		"type":               {typeSection, "\x01\x60\x02\x7f\x7e\x01\x7b"},
		"imports":            {importSection, "\x04\x01a\x01b\x00\x00\x01a\x01b\x01\x70\x00\x01\x01a\x01b\x02\x01\x01\x02\x01a\x01b\x03\x7f\x01"},
		"globals":            {globalSection, "\x02\x7f\x01\x41\xff\xff\x00\x0b\x7e\x00\x42\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x0b"},
		"floats and vectors": {globalSection, "\x03\x7d\x01\x431234\x0b\x7c\x00\x4412345678\x0b\x7b\x00\xfd\x0c0123456789abcdef\x0b"},
		"references":         {globalSection, "\x03\x70\x01\xd0\x70\x0b\x70\x00\xd2\x05\x0b\x7f\x00\x23\x00\x0b"},
		"elements of each kind": {elementSection, "\x08\x00\x41\x00\x0b\x01\x07\x01\x00\x01\x07\x02\x00\x41\x00\x0b\x00\x01\x07\x03\x00\x01\x07" +
			"\x04\x41\x00\x0b\x01\xd2\x00\x0b\x05\x70\x01\xd0\x70\x0b\x06\x00\x41\x00\x0b\x70\x00\x07\x70\x00"},
		"code":           {codeSection, "\x01\x06\x01\xd0\x86\x03\x7f\x0b"}, // 50,000 locals
		"data":           {dataSection, "\x03\x00\x41\x00\x0b\x02hi\x01\x00\x02\x00\x41\x00\x0b\x01x"},
		"data count":     {dataCountSection, "\x03"},
		"names":          {customSection, "\x04name\x00\x02\x01m\x01\x04\x01\x00\x01f\x02\x06\x01\x00\x01\x00\x01x\x09\x01?"},
		"another custom": {customSection, "\x01xwhatever"},
	} {
		if !wellFormed(c.id, []byte(c.body)) {
			t.Errorf("%s: %q is refused", name, c.body)
		}
	}
}

// What compilers make passes unchanged but for the bound of the table, and a
// bad custom section only goes missing.
func TestConfineKeepsModules(t *testing.T) {
	for _, code := range [][]byte{guest.code, RustEcho(t).Code, named(), command(nil)} {
		got, err := confine(code, 1<<30)
		if err != nil || len(got) < len(code)-64 || len(got) > len(code)+64 {
			t.Errorf("module of %d bytes becomes one of %d: %v", len(code), len(got), err)
		}
	}
	bad := append(command(nil), section(customSection, []byte("\x04name\x01\x01\x05")...)...)
	if got, err := confine(bad, 0); err != nil || !bytes.Equal(got, command(nil)) {
		t.Errorf("bad names: %x, %v", got, err)
	}
}
