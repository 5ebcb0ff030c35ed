package hostsvc

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

const (
	// maxBucket is the longest name of a bucket: that of its stream has four
	// characters more and at most 255.
	maxBucket = 251
	// maxLiteral is the most that a template may have besides placeholders, so
	// that there is place for a digest.
	maxLiteral = 128
	// digestLength is how many hex digits of a digest a name has: 128 bits.
	digestLength = 32
)

var (
	placeholder = regexp.MustCompile(`(?i)\$\{(namespace|workload_name)\}`)
	bucketName  = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)
	notInBucket = regexp.MustCompile(`[^a-zA-Z0-9_-]`)
	digestAtEnd = regexp.MustCompile(`[0-9a-f]{32}$`)
)

// template makes names of buckets from those of a tenant. Tenants of which the
// template tells a part have different names if that part differs; tenants it
// does not tell apart share a bucket.
type template struct {
	before, after string   // the text around the placeholders
	between       []string // the text between them
	kinds         []string // what they stand for, one more than between
}

// parseTemplate reads text with the placeholders ${namespace} and
// ${workload_name}, in upper or lower case.
func parseTemplate(s string) (template, error) {
	literal := placeholder.ReplaceAllString(s, "")
	switch {
	case s == "":
		return template{}, errors.New("it is empty")
	case literal != "" && !bucketName.MatchString(literal):
		return template{}, fmt.Errorf("%.200q: want letters, digits, _, -, ${namespace} and ${workload_name}", s)
	case len(literal) > maxLiteral:
		return template{}, fmt.Errorf("it has more than %d characters besides ${namespace} and ${workload_name}", maxLiteral)
	}
	at := placeholder.FindAllStringSubmatchIndex(s, -1)
	if at == nil {
		return template{before: s}, nil
	}
	t := template{before: s[:at[0][0]], after: s[at[len(at)-1][1]:]}
	for i, m := range at {
		t.kinds = append(t.kinds, strings.ToLower(s[m[2]:m[3]]))
		if i > 0 {
			t.between = append(t.between, s[at[i-1][1]:m[0]])
		}
	}
	return t, nil
}

// name returns the bucket of a tenant. It is what the template says unless
// another tenant's could be the same, or could not be a bucket; then it also has
// a digest of the names. Names without a digest never end, where that would be,
// like those with one.
func (t template) name(tenant Tenant) string {
	values := make([]string, len(t.kinds))
	for i, kind := range t.kinds {
		if values[i] = tenant.Namespace; kind == "workload_name" {
			values[i] = tenant.Workload
		}
	}
	core := t.join(values)
	if plain := t.before + core + t.after; len(t.kinds) == 0 ||
		t.unambiguous(values) && !digestAtEnd.MatchString(core) && bucketName.MatchString(plain) && len(plain) <= maxBucket {
		return plain
	}
	end := t.separator() + t.digest(tenant) + t.after
	core = notInBucket.ReplaceAllString(core, "-")
	return t.before + core[:min(len(core), maxBucket-len(t.before)-len(end))] + end
}

func (t template) join(values []string) string {
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteString(t.between[i-1])
		}
		b.WriteString(v)
	}
	return b.String()
}

// unambiguous reports whether the values can be told from what join makes of
// them: there is only one kind, or there are two with a text between them that
// is nowhere else.
func (t template) unambiguous(values []string) bool {
	if !t.has("namespace") || !t.has("workload_name") {
		return true
	}
	if len(values) != 2 || t.between[0] == "" {
		return false
	}
	joined, at := t.join(values), len(values[0])
	return strings.Index(joined, t.between[0]) == at && strings.LastIndex(joined, t.between[0]) == at
}

func (t template) has(kind string) bool {
	for _, k := range t.kinds {
		if k == kind {
			return true
		}
	}
	return false
}

// separator is what goes before a digest: the text between the first two
// placeholders.
func (t template) separator() string {
	if len(t.between) > 0 && t.between[0] != "" {
		return t.between[0]
	}
	return "_"
}

// digest returns hex digits of a digest over the names that the template has.
func (t template) digest(tenant Tenant) string {
	var b []byte
	for _, part := range []struct{ kind, value string }{{"namespace", tenant.Namespace}, {"workload_name", tenant.Workload}} {
		if !t.has(part.kind) {
			part.value = ""
		}
		b = append(binary.BigEndian.AppendUint64(b, uint64(len(part.value))), part.value...)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])[:digestLength]
}
