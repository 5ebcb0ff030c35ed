package image

import (
	"os"
	"testing"

	"nex/internal/nextest"
)

func TestMain(m *testing.M) { nextest.Main(m) }

func firstProgram(t *testing.T) []byte {
	t.Helper()
	init, err := os.ReadFile(nextest.GuestInit(t))
	if err != nil {
		t.Fatal(err)
	}
	return init
}

func TestAnImageIsWhatItSays(t *testing.T) {
	o := Options{KernelDir: nextest.KernelDir(t), Init: firstProgram(t), Agent: nextest.StaticAgent(t)}
	store := Open(t.TempDir())
	first, err := store.Build(t.Context(), "one", o)
	if err != nil {
		t.Fatal(err)
	}
	again, err := store.Build(t.Context(), "two", o)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		if first.Files[part] != again.Files[part] {
			t.Errorf("%s differs from one build to the next", part)
		}
		a, err := os.Stat(store.Dir("one") + "/" + part)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.Stat(store.Dir("two") + "/" + part)
		if err != nil || !os.SameFile(a, b) {
			t.Errorf("%s is on the disk twice (%v)", part, err)
		}
	}
	if _, err := Verify(t.Context(), store.Dir("one")); err != nil {
		t.Error(err)
	}
}
