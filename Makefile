# The two commands: `make devbox` brings up a whole Pleiad on this machine, down
# to a running cluster; `make test` passes the tests. Both install what they
# need, as root on Debian 12. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(PATH):/usr/local/go/bin

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

KUBERNETES := v1.37.1
IMAGE := dist/kubernetes-$(KUBERNETES).tar
# The builder's cache is addressed by content: it never hides a change. Point
# it elsewhere, or remove it, to build from nothing.
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pleiad/nodeimage

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 18

.PHONY: build
build: ## build the program: bin/pleiad
	@hack/install go
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o bin/pleiad ./cmd/pleiad

.PHONY: image
image: build ## build the Kubernetes node image
	@hack/install image
	@mkdir -p $(dir $(IMAGE))
	bin/pleiad image build kubernetes --version $(KUBERNETES) --file $(IMAGE) --cache-dir $(CACHE)

.PHONY: devbox
devbox: image ## bring up a whole Pleiad with a cluster on this machine
	@hack/install run
	bin/pleiad devbox up --image $(IMAGE)

.PHONY: devbox-down
devbox-down: ## remove all of the devbox
	bin/pleiad devbox down

.PHONY: test
test: lint unit conformance e2e ## pass all tests: style, unit, conformance, and a real cluster

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, checksums of the modules
	@hack/install go
	hack/lint

# What is tested against real daemons: LXD, and etcd clusters of several members.
CONFORMANCE := ./internal/store/... ./internal/hypervisor/... ./internal/devbox/...

.PHONY: unit
unit: ## unit tests, with the race detector
	@hack/install go test image
	CGO_ENABLED=1 go test -race $$(go list ./cmd/... ./internal/... ./nodeimage/... ./test/house/... ./test/bench/... | \
	  grep -vxF "$$(go list $(CONFORMANCE))")

.PHONY: conformance
conformance: ## the store's and the hypervisors' suites, on real etcds and LXD daemons
	@hack/install go test run image
	CGO_ENABLED=1 go test -race $(CONFORMANCE)

.PHONY: e2e
e2e: image ## a real cluster on two real LXD daemons
	@hack/install run test
	PLEIAD=$(CURDIR)/bin/pleiad PLEIAD_NODE_IMAGE=$(CURDIR)/$(IMAGE) \
	  go test -count=1 -timeout 30m -v ./test/e2e/...

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10s)
	hack/fuzz $(or $(FUZZTIME),10s)

.PHONY: bench
bench: image ## measure, and print what it compares to
	@hack/install run test
	hack/bench
