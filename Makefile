# Sluice's tasks. `make help` lists them. Nothing needs to be installed but Go:
# generators and linters are built at the versions pinned in tools/go.mod.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
.DEFAULT_GOAL := help

# Where the tools are built. The Makefile does not install anything elsewhere.
BIN := $(CURDIR)/.tmp/bin
BUF := $(BIN)/buf
LINT := $(BIN)/golangci-lint
export PATH := $(BIN):$(PATH)

# The commit that the schema is compared with; empty compares with nothing.
AGAINST ?= $(shell git rev-parse --verify --quiet origin/main || git rev-parse --verify --quiet HEAD~1)
FUZZTIME ?= 10s
ARGS ?=
# CHAOS=long runs more rounds of the fault tests.
CHAOS ?=
export CHAOS

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Start the gateway with its data in ./data (ARGS= for flags)
	@mkdir -p $(BIN) && go build -o $(BIN)/sluice ./cmd/sluice && exec $(BIN)/sluice serve $(ARGS)

.PHONY: test
test: ## Run every test
	go test ./...
	cd bench && go test ./...

.PHONY: race
race: ## Run every test under the race detector
	go test -race ./...

.PHONY: check
check: format lint breaking generated race fuzz test ## Run all that CI runs

.PHONY: generate
generate: $(BUF) ## Generate gen/ from proto/
	go build -o $(BIN)/ google.golang.org/protobuf/cmd/protoc-gen-go
	$(BUF) generate

.PHONY: generated
generated: $(BUF) # gen/ is what proto/ says
	@sum() { find gen -type f -exec sha256sum {} + | sort | sha256sum; }; before=$$(sum); \
	$(MAKE) --silent generate; \
	[ "$$before" = "$$(sum)" ] || { echo "gen/ was stale: commit what make generate wrote" >&2; exit 1; }

.PHONY: fmt
fmt: $(BUF) $(LINT) ## Format Go and proto files
	$(BUF) format -w
	$(LINT) fmt

.PHONY: format
format: $(BUF) $(LINT) # the files are formatted
	$(BUF) format -d --exit-code
	$(LINT) fmt --diff

.PHONY: lint
lint: $(BUF) $(LINT) ## Run the linters
	$(BUF) lint
	$(LINT) run
	cd bench && $(LINT) run --config ../.golangci.yml

.PHONY: breaking
breaking: $(BUF) # the schema breaks nobody
	@if [ -n "$(AGAINST)" ] && git cat-file -e $(AGAINST):buf.yaml 2>/dev/null; then \
		$(BUF) breaking --against ".git#ref=$(AGAINST)"; \
	else echo "no earlier schema to compare with"; fi

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME
	@go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}} {{.ImportPath}}{{end}}' ./... | while read -r dir pkg; do \
		{ grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$$dir"/*_test.go || true; } | sed 's/func //' | while read -r target; do \
			echo "$$pkg $$target"; \
			go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) "$$pkg"; \
		done; \
	done

.PHONY: chaos
chaos: ## Break what is under a gateway and check what it promised (see chaos/README.md)
	go test -tags chaos -count=1 -timeout $(if $(filter long,$(CHAOS)),4h,15m) -v ./chaos

.PHONY: bench
bench: ## Measure all of it, in about 20 minutes (ARGS= for flags; see bench/README.md)
	@mkdir -p .tmp && rm -f .tmp/bench.txt
	go test -run='^$$' -bench=Decode -benchtime=8000x -cpu=1 ./server/callback
	cd bench && go run . -benchstat ../.tmp/bench.txt $(ARGS)
	cd bench && go run . plot -in ../.tmp/bench.txt -out ../.tmp/bench.svg

# The tools are rebuilt when their versions change. The ones that buf runs are
# found through PATH.
$(BUF) $(LINT) &: tools/go.mod Makefile
	@mkdir -p $(BIN)
	cd tools && go build -o $(BIN)/ tool
	@touch $(BUF) $(LINT)
