SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
FUZZTIME ?= 30s
SEED     ?= $(shell date +%s)
DURATION ?= 5m
TOOLS    := $(CURDIR)/bin/tools
VERSIONED = -X main.version=$(VERSION)

# Agents for Linux have V8, which comes as a library for two processors, and
# are linked by a C++ compiler for this machine; others do without both.
ifneq (,$(filter linux-amd64-amd64 linux-arm64-arm64,$(subst $() ,-,$(shell go env GOOS GOARCH GOHOSTARCH 2>/dev/null))))
TAGS     := v8
CGO       = CGO_ENABLED=1 CGO_CXXFLAGS="-O2 -I$$(go mod download github.com/tommie/v8go && go list -m -f '{{.Dir}}' github.com/tommie/v8go)/deps/include"
AGENT     = $(CGO) go build -trimpath -tags v8,netgo,osusergo -ldflags '-s -w $(VERSIONED) -linkmode external -extldflags "-static"'
else
AGENT     = CGO_ENABLED=0 go build -trimpath -ldflags '-s -w $(VERSIONED)'
endif

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install git and compilers where they are missing: for V8, and for the race detector
	@bash tools/deps.sh git gcc $(if $(TAGS),g++)

.PHONY: build
build: $(if $(TAGS),deps) ## build bin/nex and bin/nex-agent, both static
	@bash tools/deps.sh git
	GOOS=linux GOARCH=amd64 CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o internal/image/initbin/nex-init ./cmd/nex-init
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w $(VERSIONED)' -o bin/ ./cmd/nex
	$(AGENT) -o bin/ ./cmd/nex-agent

CROSS := windows/amd64 darwin/arm64 darwin/amd64 linux/arm64

.PHONY: cross
cross: ## see that nex and nex-agent, both without cgo, compile for other systems, and vet all code for two (keeps nothing)
	@for target in $(CROSS); do \
		echo "compile for $$target"; \
		GOOS=$${target%/*} GOARCH=$${target#*/} CGO_ENABLED=0 go build ./cmd/nex ./cmd/nex-agent ./cmd/nex-init || exit 1; \
	done
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go vet ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 go vet ./...

.PHONY: demo
demo: build ## build, then show functions and a service running on this machine
	go run ./examples/demo

.PHONY: test
test: deps $(TOOLS)/gotestsum $(TOOLS)/nats $(TOOLS)/cni/ptp $(TOOLS)/cni/host-local ## run all tests with the race detector (TESTFLAGS=-v for more)
	@bash tools/deps.sh curl $(if $(TAGS),e2fsck qemu-system-x86_64 ip busybox mmdebstrap)
	@[ -d bin/kernel ] || bash tools/kernel.sh bin/kernel || [ -z "$$CI" ]
	@[ -d bin/bases ] || bash tools/bases.sh bin/bases || [ -z "$$CI" ]
	@status=0; rm -f bin/test.json; \
	$(CGO) NEX_TEST_NATS_CLI=$(TOOLS)/nats NEX_TEST_KERNEL=$$(realpath -q bin/kernel) NEX_TEST_BASES=$$(realpath -q bin/bases) NEX_TEST_CNI_PLUGINS=$(TOOLS)/cni $(TOOLS)/gotestsum --format pkgname-and-test-fails --jsonfile bin/test.json \
		--rerun-fails=1 --rerun-fails-max-failures=5 --packages=./... \
		-- -race -timeout 20m -tags '$(TAGS)' $(TESTFLAGS) || status=$$?; \
	awk -f tools/tally.awk bin/test.json && exit $$status

.PHONY: race
race: deps ## repeat the tests of all internal packages, to catch the rare race (test runs each once)
	$(CGO) go test -race -tags '$(TAGS)' -count=3 ./internal/...

.PHONY: chaos
chaos: deps ## drive nodes through faults: SEED= draws the plan, DURATION= is how long (5m), CHAOSFLAGS='-nodes 1'
	@mkdir -p bin/chaos
	$(CGO) go test -race -tags '$(TAGS)' -run '^TestChaos' -timeout 0 -v -artifacts -outputdir bin/chaos ./test/chaos \
		-seed $(SEED) -duration $(DURATION) $(CHAOSFLAGS)

.PHONY: endure
endure: deps ## deploy and stop CYCLES= times (20000), for LIMIT= (20m) at most, and restart NATS RESTARTS= times (20) under load
	$(CGO) go test -tags '$(TAGS)' -run '^(TestCycles|TestServerRestarts)' -timeout 0 -v ./test/chaos \
		-cycles $(or $(CYCLES),20000) -limit $(or $(LIMIT),20m) -restarts $(or $(RESTARTS),20)

.PHONY: fuzz
fuzz: deps ## run every fuzz target for FUZZTIME (30s)
	@grep -rHoE '^func Fuzz[[:alnum:]_]+' --include='*_test.go' . | sort | while IFS=: read -r file func; do \
		echo "$${func#func } in $${file%/*}"; \
		$(CGO) go test -tags '$(TAGS)' -run '^$$' -fuzz "^$${func#func }$$" -fuzztime $(FUZZTIME) "$${file%/*}" || exit 1; \
	done

.PHONY: bench
bench: build ## measure calls through Nex beside plain NATS, to bin/bench.json (BENCHFLAGS=--quick)
	go run ./bench --json bin/bench.json $(BENCHFLAGS)

.PHONY: gobench
gobench: deps $(if $(BASE),$(TOOLS)/benchstat) ## run the Go benchmarks (BASE=file compares with an earlier bin/bench.txt)
	@mkdir -p bin; set -o pipefail; $(CGO) go test -tags '$(TAGS)' -run '^$$' -bench . -benchmem \
		$$(grep -rlE '^func Benchmark' --include='*_test.go' . | xargs -r dirname | sort -u) | tee bin/bench.txt
	$(if $(BASE),$(TOOLS)/benchstat $(BASE) bin/bench.txt)

.PHONY: lint
lint: deps $(TOOLS)/staticcheck ## check format, go vet and staticcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'run gofmt -w on these'; exit 1; }
	CGO_ENABLED=0 go vet ./...
	$(CGO) go vet -tags '$(TAGS)' ./...
	$(CGO) $(TOOLS)/staticcheck -tags '$(TAGS)' ./...

.PHONY: check
check: lint test ## what CI runs

bin/kernel: # what tests of microVMs boot
	@bash tools/kernel.sh $@

.PHONY: clean
clean: ## remove what was built
	rm -rf bin internal/image/initbin/nex-init

$(TOOLS)/nats:        package := github.com/nats-io/natscli/nats
$(TOOLS)/staticcheck: package := honnef.co/go/tools/cmd/staticcheck
$(TOOLS)/gotestsum:   package := gotest.tools/gotestsum
$(TOOLS)/cni/ptp:         package := github.com/containernetworking/plugins/plugins/main/ptp
$(TOOLS)/cni/host-local:  package := github.com/containernetworking/plugins/plugins/ipam/host-local
$(TOOLS)/benchstat:   package := golang.org/x/perf/cmd/benchstat
$(TOOLS)/%: tools/go.mod tools/go.sum
	go build -C tools -o $@ $(package)
