package config

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// reader walks a file of correct syntax along the schema, fills the draft and
// collects warnings.
type reader struct {
	into     draft
	given    map[string]string // path of a setting → the path the file used for it
	warnings []Warning
}

// read takes the value raw that stands at path, which is p in the schema.
func (r *reader) read(p *place, path string, raw json.RawMessage) error {
	if typeOf(raw) == "null" && !p.element {
		return nil // null asks for the default
	}
	r.warn(path, p.warning())
	setting := path
	if p.meant != nil {
		p, setting = p.meant, p.meant.Path
	}
	if first, twice := r.given[setting]; twice {
		return fmt.Errorf("%q and %q are the same setting; keep one", first, path)
	}
	r.given[setting] = path
	if !p.Kind.holds(raw) {
		return wrongType(p, path, raw)
	}
	if err := r.readChildren(p, path, raw); err != nil {
		return err
	}
	if p.field == nil {
		return nil
	}
	if err := json.Unmarshal(raw, p.field(&r.into)); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return nil
}

// readChildren reads the elements of a list and the values of an object,
// unless the schema leaves them free.
func (r *reader) readChildren(p *place, path string, raw json.RawMessage) error {
	if p.below == nil {
		return nil
	}
	for _, c := range children(raw) {
		next := p.find(c.name)
		if next == nil {
			return unknown(p, path, c.name)
		}
		if err := r.read(next, join(path, c.name), c.raw); err != nil {
			return err
		}
	}
	return nil
}

// warn notes text for the key at path, unless the object it is in was the
// last to be warned of.
func (r *reader) warn(path, text string) {
	if n := len(r.warnings); text == "" || n > 0 && strings.HasPrefix(path, r.warnings[n-1].Key+".") {
		return
	}
	r.warnings = append(r.warnings, Warning{Key: path, Text: text})
}

// wrongType is the error for the value raw at path, which p does not hold.
func wrongType(p *place, path string, raw json.RawMessage) error {
	if path == "" {
		return fmt.Errorf("the configuration must be %s, not %s", p.Kind, describe(raw))
	}
	return fmt.Errorf("%q must be %s, not %s", path, p.Kind, describe(raw))
}

// unknown is the error for a key called name that cannot be in p, at path.
func unknown(p *place, path, name string) error {
	if s := p.suggest(path, name); s != "" {
		return fmt.Errorf("unknown key %q; did you mean %q?", join(path, name), s)
	}
	return fmt.Errorf("unknown key %q", join(path, name))
}

// child is a value in an object, or in a list where its name is "[0]", "[1]"
// and so on.
type child struct {
	name string
	raw  json.RawMessage
}

// children returns the values in raw, in order; none of a scalar. The syntax
// of raw was checked before, so no error can come of reading it again.
func children(raw json.RawMessage) []child {
	var found []child
	switch typeOf(raw) {
	case "a list":
		var elements []json.RawMessage
		_ = json.Unmarshal(raw, &elements)
		for i, e := range elements {
			found = append(found, child{fmt.Sprintf("[%d]", i), e})
		}
	case "an object":
		dec := json.NewDecoder(strings.NewReader(string(raw)))
		_, _ = dec.Token() // the opening brace
		for dec.More() {
			name, _ := dec.Token()
			c := child{name: name.(string)}
			_ = dec.Decode(&c.raw)
			found = append(found, c)
		}
	}
	return found
}

// holds reports whether raw is a value of kind k. Elements and values of lists
// and objects are not looked at.
func (k Kind) holds(raw json.RawMessage) bool {
	switch k {
	case Natural:
		n, err := strconv.ParseInt(string(raw), 10, 64)
		return err == nil && n >= 0
	case Positive:
		n, err := strconv.ParseInt(string(raw), 10, 64)
		return err == nil && n > 0 && n <= math.MaxInt32
	case Number:
		n, err := strconv.ParseFloat(string(raw), 64)
		return err == nil && n > 0 && !math.IsInf(n, 0)
	case Milliseconds:
		n, err := strconv.ParseInt(string(raw), 10, 64)
		return err == nil && n > 0 && n <= math.MaxInt64/int64(time.Millisecond)
	case List, Texts:
		return typeOf(raw) == "a list"
	case Object, TextMap, Free:
		return typeOf(raw) == "an object"
	}
	return typeOf(raw) == string(k)
}

// typeOf returns the JSON type of raw in words.
func typeOf(raw json.RawMessage) string {
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return string(Text)
	case 't', 'f':
		return string(Bool)
	case 'n':
		return "null"
	}
	return "a number"
}

// describe returns what raw is: the type of it, and of short numbers the value.
func describe(raw json.RawMessage) string {
	const short = 20
	if t := typeOf(raw); t != "a number" || len(raw) > short {
		return t
	}
	return string(raw)
}

// inverted is false for true.
type inverted bool

// UnmarshalJSON implements [json.Unmarshaler].
func (i *inverted) UnmarshalJSON(data []byte) error {
	*i = string(data) == "false"
	return nil
}

// milliseconds is a duration that is read from a number.
type milliseconds time.Duration

// UnmarshalJSON implements [json.Unmarshaler].
func (m *milliseconds) UnmarshalJSON(data []byte) error {
	n, err := strconv.ParseInt(string(data), 10, 64)
	*m = milliseconds(time.Duration(n) * time.Millisecond)
	return err
}
