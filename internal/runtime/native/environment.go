package native

import (
	"maps"
	"slices"
	"strings"

	"nex"
)

// environment lists the variables of a service: those asked for, with keys in
// upper case, and PATH and HOME unless they are among them. Where two keys
// differ in case only, the one in upper case counts.
func environment(asked map[string]string, home string) ([]string, error) {
	vars := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(asked)) { // capital letters come first
		value := asked[key]
		if key == "" || strings.ContainsAny(key, "=\x00") || strings.Contains(value, "\x00") {
			return nil, nex.Errorf(nex.Invalid, "environment variable %q cannot be passed on", key)
		}
		if upper := strings.ToUpper(key); upper == key || !has(vars, upper) {
			vars[upper] = value
		}
	}
	if !has(vars, "PATH") {
		vars["PATH"] = defaultPath
	}
	if !has(vars, "HOME") {
		vars["HOME"] = home
	}
	var list []string
	for _, key := range slices.Sorted(maps.Keys(vars)) {
		list = append(list, key+"="+vars[key])
	}
	return list, nil
}

func has(vars map[string]string, key string) bool {
	_, ok := vars[key]
	return ok
}
