package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// checkSyntax returns an error that begins with line and column when data is
// not exactly one JSON value in UTF-8 whose objects name every key once.
func checkSyntax(data []byte) error {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return syntaxError(data, i, errors.New("not UTF-8"))
		}
		i += size
	}
	var value json.RawMessage
	var bad *json.SyntaxError
	if err := json.Unmarshal(data, &value); errors.As(err, &bad) {
		return syntaxError(data, int(bad.Offset)-1, err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := checkDuplicates(dec); err != nil {
		return syntaxError(data, int(dec.InputOffset())-1, err)
	}
	return nil
}

// checkDuplicates reads one value and returns an error at the first key that
// its object already has.
func checkDuplicates(dec *json.Decoder) error {
	open, err := dec.Token()
	if err != nil {
		return err
	}
	delim, ok := open.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			if seen[key.(string)] {
				return fmt.Errorf("key %q is given twice", key)
			}
			seen[key.(string)] = true
		}
		if err := checkDuplicates(dec); err != nil {
			return err
		}
	}
	_, err = dec.Token() // the closing bracket
	return err
}

// syntaxError puts line and column of the byte at offset before err. Both
// count from 1, columns in characters.
func syntaxError(data []byte, offset int, err error) error {
	before := data[:min(max(offset, 0), len(data))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Errorf("%d:%d: %w", line, column, err)
}
