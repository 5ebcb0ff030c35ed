package config

import (
	"encoding"
	"reflect"
	"strings"

	"nex"
)

// settingKeys lists the keys of a workload's settings below a path: whatever
// [nex.Settings] has, by the names and the types it has there.
func settingKeys(path string) []Key { return fieldKeys(path, reflect.TypeFor[nex.Settings]()) }

func fieldKeys(path string, t reflect.Type) (keys []Key) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous && name == "" {
			keys = append(keys, fieldKeys(path, f.Type)...)
			continue
		}
		kind, below := kindOf(f.Type)
		key := path + "." + name
		keys = append(keys, Key{Path: key, Kind: kind, Status: Works, Note: "setting of the workload, as in a request"})
		if below != nil {
			keys = append(keys, fieldKeys(key, below)...)
		}
	}
	return keys
}

// kindOf returns what a Go type is in JSON, and the struct whose fields are
// below it, if it is one.
func kindOf(t reflect.Type) (kind Kind, below reflect.Type) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return Text, nil
	}
	switch t.Kind() {
	case reflect.Bool:
		return Bool, nil
	case reflect.String:
		return Text, nil
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return Positive, nil
	case reflect.Float32, reflect.Float64:
		return Number, nil
	case reflect.Struct:
		return Object, t
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return Texts, nil
		}
	case reflect.Map:
		if t.Elem().Kind() == reflect.String {
			return TextMap, nil
		}
	}
	panic("a setting cannot be a " + t.String() + " in a configuration: say what it is, in kindOf")
}
