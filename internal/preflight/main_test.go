package preflight

import (
	"testing"

	"nex/internal/nextest"
)

func TestMain(m *testing.M) { nextest.Main(m) }
