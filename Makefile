# Everything that CI does is a target here.

BENCHTIME ?= 1x
FUZZTIME  ?= 60s
SOAK      ?= 20
SEEDS     ?= 2000
JOBS      ?= 10000

TOOL = go tool -modfile=internal/tools/go.mod

.PHONY: help gen lint test race e2e bench fuzz soak demo
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "%-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

gen: ## write again what is generated: the diagram of states, the stories' answers
	go generate ./...
	go test -count=1 ./engine/machine -rewrite

lint: ## check style: golangci-lint, staticcheck, gofumpt, go.mod
	go mod tidy -diff
	$(TOOL) golangci-lint run ./...
	$(TOOL) staticcheck ./...
	@unformatted=$$($(TOOL) gofumpt -l .); test -z "$$unformatted" || \
		{ echo "not formatted; run $(TOOL) gofumpt -w ."; echo "$$unformatted"; exit 1; }

test: ## vet and test everything; this is what has to pass
	scripts/deps
	go vet ./...
	go test -timeout=9m ./...

race: ## test everything with the race detector, in random order
	scripts/deps
	go test -race -shuffle=on -timeout=20m ./...

e2e: ## test the binary: several processes, real faults
	scripts/deps
	go test -race -count=1 -timeout=20m ./cmd/... ./e2e/...
	go test -count=1 -timeout=10m -run=TestKilledWorkers -v ./e2e -jobs=$(JOBS)

bench: ## run the benchmarks; BENCHTIME=3s for numbers that mean something
	go test -run='^$$' -bench=. -benchmem -benchtime=$(BENCHTIME) ./...

fuzz: ## fuzz each decoder for FUZZTIME
	scripts/fuzz $(FUZZTIME)

soak: ## run SEEDS random programs, then test SOAK times with the race detector, in random order
	go test -run=TestRandom -count=1 -timeout=0 ./engine -seeds=$(SEEDS)
	go test -race -shuffle=on -count=$(SOAK) -timeout=0 ./engine/... ./internal/... ./kv/... ./nodes/... ./streams/... ./timers/...

demo: ## show events that start jobs, in one process
	go run ./cmd/millrace demo
