# Everything that CI does is a target here.

BENCHTIME ?= 1x
FUZZTIME  ?= 60s
TIMES     ?= 20
SEEDS     ?= 2000
JOBS      ?= 10000
DURATION  ?= 10m
SEED      ?= 0

TOOL = go tool -modfile=internal/tools/go.mod

# What has to pass often collects its garbage rarely, in the processes that tests start as
# well: that takes a fifth less time.
lint test: export GOGC ?= 400

.PHONY: help gen lint test race e2e scenarios soak stress bench fuzz year demo
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "%-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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
	scripts/inmemory go test -vet=off -ldflags=-w -timeout=9m ./...

race: ## test everything with the race detector, in random order
	scripts/deps
	go test -race -shuffle=on -timeout=20m ./...

e2e: ## real processes, real faults, and an oracle: the short forms of all scenarios
	scripts/deps
	scripts/inmemory go test -race -count=1 -timeout=10m $$(go list ./e2e/... | grep -v 'e2e$$')
	scripts/inmemory go test -count=1 -timeout=25m ./e2e -scenarios=short -jobs=$(JOBS)

scenarios: ## the full forms of all scenarios, with the figures of docs/reliability.md
	scripts/deps
	go test -count=1 -timeout=0 -v ./e2e -scenarios=full
	go test -count=1 -v -run='^TestRegistryGarbage$$' ./nodes -crowd=5000

soak: ## everything at once, at random, for DURATION; SEED=n is the first of the seeds
	go test -count=1 -timeout=0 -v -run='^TestMix$$' ./e2e -scenarios=full -duration=$(DURATION) -seed=$(SEED)

stress: ## run SEEDS random programs, all faults at all writes, then test TIMES times with the race detector, in random order
	go test -run='TestRandom|TestPartsRandom|TestScheduleEdits|CrashPoints|TestPartsLateWrites' -count=1 -timeout=0 ./engine ./timers/scheduler -seeds=$(SEEDS)
	go test -race -shuffle=on -count=$(TIMES) -timeout=0 ./engine/... ./internal/... ./kv/... ./nodes/... ./streams/... ./timers/...

bench: ## run the benchmarks; BENCHTIME=3s for numbers that mean something
	go test -run='^$$' -bench=. -benchmem -benchtime=$(BENCHTIME) ./...

fuzz: ## fuzz each decoder for FUZZTIME
	scripts/fuzz $(FUZZTIME)

year: ## live through a virtual year of schedules, with a real server: 8 min of CPU
	go test -run='^TestYear$$' -count=1 -timeout=0 -v ./timers/scheduler -days=366

demo: ## show events that start jobs, in one process
	go run ./cmd/millrace demo
