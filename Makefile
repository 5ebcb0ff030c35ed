SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
FUZZTIME ?= 30s
TOOLS    := $(CURDIR)/bin/tools

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install git and gcc where they are missing; the race detector links with gcc
	@bash tools/deps.sh git gcc

.PHONY: build
build: ## build bin/nex and bin/nex-agent; plain Go is enough
	@bash tools/deps.sh git
	CGO_ENABLED=0 go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/nex ./cmd/nex-agent

.PHONY: demo
demo: build ## build, then show functions and a service running on this machine
	go run ./examples/demo

.PHONY: test
test: deps $(TOOLS)/gotestsum $(TOOLS)/nats ## run all tests with the race detector (TESTFLAGS=-v for more)
	@status=0; rm -f bin/test.json; \
	NEX_TEST_NATS_CLI=$(TOOLS)/nats $(TOOLS)/gotestsum --format pkgname-and-test-fails --jsonfile bin/test.json \
		-- -race $(TESTFLAGS) ./... || status=$$?; \
	awk -f tools/tally.awk bin/test.json && exit $$status

.PHONY: race
race: deps ## repeat the tests of all internal packages, to catch the rare race (test runs each once)
	go test -race -count=3 ./internal/...

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (30s)
	@grep -rHoE '^func Fuzz[[:alnum:]_]+' --include='*_test.go' . | sort | while IFS=: read -r file func; do \
		echo "$${func#func } in $${file%/*}"; \
		go test -run '^$$' -fuzz "^$${func#func }$$" -fuzztime $(FUZZTIME) "$${file%/*}" || exit 1; \
	done

.PHONY: bench
bench: $(if $(BASE),$(TOOLS)/benchstat) ## run the benchmarks (BASE=file compares with an earlier bin/bench.txt)
	@mkdir -p bin; set -o pipefail; go test -run '^$$' -bench . -benchmem \
		$$(grep -rlE '^func Benchmark' --include='*_test.go' . | xargs -r dirname | sort -u) | tee bin/bench.txt
	$(if $(BASE),$(TOOLS)/benchstat $(BASE) bin/bench.txt)

.PHONY: lint
lint: $(TOOLS)/staticcheck ## check format, go vet and staticcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	$(TOOLS)/staticcheck ./...

.PHONY: check
check: lint test ## what CI runs

.PHONY: clean
clean: ## remove what was built
	rm -rf bin

$(TOOLS)/nats:        package := github.com/nats-io/natscli/nats
$(TOOLS)/staticcheck: package := honnef.co/go/tools/cmd/staticcheck
$(TOOLS)/gotestsum:   package := gotest.tools/gotestsum
$(TOOLS)/benchstat:   package := golang.org/x/perf/cmd/benchstat
$(TOOLS)/%: tools/go.mod tools/go.sum
	go build -C tools -o $@ $(package)
