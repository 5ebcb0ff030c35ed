package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// place is a place in the configuration file: what the table says of it, and
// the places below it by name. Below a list there is "[]" for its elements,
// below an object of strings "*" for its values.
type place struct {
	Key
	below   map[string]*place
	meant   *place // of an alias, the place it stands for
	element bool   // an element of a list or of an object of strings
}

// schema returns the table of keys as a tree.
func schema() *place {
	root := &place{Key: Key{Kind: Object}}
	for _, k := range Keys() {
		at := root
		for name := range strings.SplitSeq(strings.ReplaceAll(k.Path, "[]", ".[]"), ".") {
			if name == "[]" {
				at.Kind = List
			}
			at = at.child(name)
		}
		*at = place{Key: k, below: at.below, element: at.element}
		switch k.Kind {
		case Texts:
			at.child("[]").Kind = Text
		case TextMap:
			at.child("*").Kind = Text
		}
	}
	for _, p := range root.below {
		if p.Status == Alias {
			p.meant = root.below[p.Note]
		}
	}
	return root
}

// child returns the place called name below p, and makes one when there is
// none: an object until the table says otherwise.
func (p *place) child(name string) *place {
	if p.below == nil {
		p.below = map[string]*place{}
	}
	if p.below[name] == nil {
		p.below[name] = &place{Key: Key{Kind: Object}, element: name == "[]" || name == "*"}
	}
	return p.below[name]
}

// warning is the text for a file that uses key, "" when there is nothing to say.
func (p *place) warning() string {
	switch {
	case p.meant != nil && p.meant.Status == Works:
		return fmt.Sprintf("is an old name of %q", p.meant.Path)
	case p.meant != nil:
		return p.meant.warning()
	case p.Status == Later:
		return string(Later)
	case p.Status == Never:
		return string(Never) + ": " + p.Note
	}
	return ""
}

// suggest returns the key that somebody who wrote name at parent below p may
// have meant: a sibling spelled much alike, else the one key of that name
// elsewhere; "" when there is neither.
func (p *place) suggest(parent, name string) string {
	const longest = 64 // of a name worth comparing
	if len(name) > longest {
		return ""
	}
	plain := strings.ReplaceAll(strings.ToLower(name), "-", "_")
	best, least := "", max(1, len(plain)/3)+1
	for _, sibling := range slices.Sorted(maps.Keys(p.below)) {
		if s := p.below[sibling].Status; s == Alias || s == Never {
			continue
		}
		if d := levenshtein.ComputeDistance(plain, sibling); d < least {
			best, least = sibling, d
		}
	}
	if best != "" {
		return join(parent, best)
	}
	var elsewhere []string
	for _, k := range Keys() {
		if strings.HasSuffix(k.Path, "."+plain) {
			elsewhere = append(elsewhere, k.Path)
		}
	}
	if len(elsewhere) != 1 {
		return ""
	}
	return elsewhere[0]
}

// find returns the place of the child called name, nil when there can be none.
func (p *place) find(name string) *place {
	for _, n := range []string{name, "[]", "*"} {
		if c := p.below[n]; c != nil {
			return c
		}
	}
	return nil
}

// join adds the name of a child to the path of its parent.
func join(parent, name string) string {
	if parent == "" || strings.HasPrefix(name, "[") {
		return parent + name
	}
	return parent + "." + name
}
