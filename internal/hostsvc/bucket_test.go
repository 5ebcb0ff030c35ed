package hostsvc

import (
	"math/rand/v2"
	"strings"
	"testing"
)

var templates = []string{
	"hs_${namespace}_${workload_name}_kv", "hs_${namespace}_${workload_name}_obj", "${NAMESPACE}${Workload_Name}",
	"${workload_name}__${namespace}", "a-${namespace}-_-${workload_name}", "${namespace}_${workload_name}",
	"${namespace}_${workload_name}_${namespace}", "x${namespace}", "${workload_name}-x", "${namespace}-${namespace}",
	"${namespace}a${workload_name}", "fixed", strings.Repeat("x", 127) + "${namespace}_${workload_name}",
}

func TestBucketNames(t *testing.T) {
	for _, c := range []struct{ template, namespace, workload, want string }{
		{templates[0], "default", "echofn", "hs_default_echofn_kv"},
		{templates[1], "default", "echofn", "hs_default_echofn_obj"},
		{templates[0], "a-b", "C-9", "hs_a-b_C-9_kv"},
		{templates[0], "a_b", "c", "hs_a_b_c_8ddb6a568ee3812ad87074aef8e58b5e_kv"},
		{templates[0], "a", "b_c", "hs_a_b_c_093255e8b4fd74a5123745af0fd3e041_kv"},
		{templates[0], "ünï", "x", "hs_-n-_x_d2a03c61f50689bd5d40d0ee16a87fd1_kv"},
		{"fixed", "a", "b", "fixed"},
		{"x${namespace}", "a", "b", "xa"},
		{"x${namespace}", "a_b", "b", "xa_b"},
	} {
		got := parsed(t, c.template).name(Tenant{Namespace: c.namespace, Workload: c.workload})
		if got != c.want {
			t.Errorf("%s with %s and %s: %s, want %s", c.template, c.namespace, c.workload, got, c.want)
		}
	}
}

func TestBadTemplates(t *testing.T) {
	for _, s := range []string{"", "a.b", "${name}", "${namespace", "a b", "ü", "*", strings.Repeat("x", 129)} {
		if _, err := parseTemplate(s); err == nil {
			t.Errorf("%q was accepted", s)
		} else {
			t.Logf("%q: %v", s, err)
		}
	}
}

func parsed(t testing.TB, s string) template {
	t.Helper()
	tm, err := parseTemplate(s)
	if err != nil {
		t.Fatal(err)
	}
	return tm
}

// distinct fails if two tenants that a template tells apart have one bucket,
// or two it does not have two.
func distinct(t *testing.T, tm template, a, b Tenant) {
	t.Helper()
	same := (!tm.has("namespace") || a.Namespace == b.Namespace) && (!tm.has("workload_name") || a.Workload == b.Workload)
	x, y := tm.name(a), tm.name(b)
	if (x == y) != same {
		t.Errorf("%v: %q and %q have the buckets %q and %q", tm, a, b, x, y)
	}
	for _, name := range []string{x, y} {
		if !bucketName.MatchString(name) || len(name) > maxBucket {
			t.Errorf("%v: %q is no bucket", tm, name)
		}
	}
}

// Whatever tenants are called, nobody's bucket is another's: short names of
// the characters that templates are made of, all pairs of them.
func TestBucketsAreNotShared(t *testing.T) {
	names := []string{"", "_", "-", ".", "a", "_a", "a_", "__", "a_a", "-_", "_-", "-_-", "aa", "A", "ü", "x", "kv", "_kv"}
	for _, template := range templates {
		tm := parsed(t, template)
		seen := map[string]Tenant{}
		for _, namespace := range names {
			for _, workload := range names {
				tenant := Tenant{Namespace: namespace, Workload: workload}
				if !tm.has("namespace") {
					tenant.Namespace = ""
				}
				if !tm.has("workload_name") {
					tenant.Workload = ""
				}
				name := tm.name(tenant)
				if other, ok := seen[name]; ok && other != tenant {
					t.Errorf("%s: %q and %q share %s", template, tenant, other, name)
				}
				seen[name] = tenant
			}
		}
		if t.Failed() {
			break
		}
	}
}

// Nobody takes the name that a digest made for another tenant.
func TestDigestsAreNotForged(t *testing.T) {
	for _, template := range templates {
		tm := parsed(t, template)
		for _, victim := range []Tenant{{Namespace: "a.b", Workload: "c"}, {Namespace: "a_b", Workload: "c_d"}, {Namespace: strings.Repeat("n", 150), Workload: "w"}} {
			core := strings.TrimSuffix(strings.TrimPrefix(tm.name(victim), tm.before), tm.after)
			for i := range len(core) {
				for skip := range 3 {
					if skip > 0 && core[i] != '_' && core[i] != '-' {
						break // no separator is there
					}
					distinct(t, tm, victim, Tenant{Namespace: core[:i], Workload: core[min(i+skip, len(core)):]})
				}
			}
			distinct(t, tm, victim, Tenant{Namespace: core, Workload: victim.Workload})
			distinct(t, tm, victim, Tenant{Namespace: victim.Namespace, Workload: core})
		}
	}
}

func FuzzBucketNames(f *testing.F) {
	alphabet := []string{"_", "-", ".", "a", "0f", "", "__", "kv", "ü", strings.Repeat("deadbeef", 4), strings.Repeat("a", 120)}
	r := rand.New(rand.NewPCG(1, 2))
	word := func() string {
		var s string
		for range r.IntN(5) {
			s += alphabet[r.IntN(len(alphabet))]
		}
		return s
	}
	for range 60 {
		f.Add(word(), word(), word(), word())
	}
	f.Fuzz(func(t *testing.T, n1, w1, n2, w2 string) {
		for _, template := range templates {
			tm := parsed(t, template)
			distinct(t, tm, Tenant{Namespace: n1, Workload: w1}, Tenant{Namespace: n2, Workload: w2})
			distinct(t, tm, Tenant{Namespace: n1, Workload: w1}, Tenant{Namespace: n1, Workload: w1, ID: "another"})
		}
	})
}
