# Tidegate. `make demo` runs everything; `make test` proves it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
PYTHON := target/python/bin/python
PACKAGES := mosquitto mosquitto-clients chromium openssl curl strongswan-pki libstrongswan-standard-plugins gcc g++ make
TOOLS := mosquitto mosquitto_pub chromium openssl curl pki gcc g++ make
PROVE := target/release/tidegate-prove
CARGO_FUZZ := 0.13.2
CARGO_MUTANTS := 27.1.0
WEB_SOURCES := $(shell find web -path web/node_modules -prune -o -path web/dist -prune -o -path web/e2e -prune -o -type f -print 2>/dev/null)

.PHONY: help
help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

.PHONY: demo
demo: build ## Build and run everything with simulated sensors; open http://localhost:8000
	@target/release/tidegate --dir demo up --demo

.PHONY: build
build: web/dist/index.html ## Build the release binary with the page inside
	cargo build --release --locked --bin tidegate

.PHONY: test
test: setup lint test-rust test-c test-python test-web test-e2e ## Set up what tests need, then run every check and test

.PHONY: setup
setup: setup-apt setup-fuzz web/node_modules/.package-lock.json $(PYTHON) ## Install what the tests use

.PHONY: setup-apt
setup-apt:
	@missing=0; for tool in $(TOOLS); do PATH="$$PATH:/usr/sbin" command -v $$tool >/dev/null || missing=1; done
	if [ $$missing = 1 ]; then
	  $(SUDO) apt-get update -q
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(PACKAGES)
	fi

.PHONY: setup-fuzz
setup-fuzz:
	command -v cargo-fuzz >/dev/null || cargo install -q cargo-fuzz --version $(CARGO_FUZZ) --locked

.PHONY: setup-mutants
setup-mutants:
	command -v cargo-mutants >/dev/null || cargo install -q cargo-mutants --version $(CARGO_MUTANTS) --locked

$(PYTHON): clients/testing/requirements.txt clients/python/pyproject.toml
	python3 -m venv target/python
	target/python/bin/pip install -q --disable-pip-version-check -r clients/testing/requirements.txt -e clients/python
	touch $(PYTHON)

web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	touch node_modules/.package-lock.json

web/dist/index.html: web/node_modules/.package-lock.json $(WEB_SOURCES)
	cd web && npm run build
	touch dist/index.html

.PHONY: lint
lint: web/dist/index.html $(PYTHON) ## Formatting, lints and types of all languages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items
	target/python/bin/ruff check -q clients/python
	target/python/bin/ruff format -q --check clients/python
	target/python/bin/mypy --config-file clients/python/pyproject.toml clients/python/src clients/python/tests
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cd web && npm run check && npm run lint

.PHONY: test-rust
test-rust: web/dist/index.html $(PYTHON) ## Unit and integration tests, with real brokers
	TIDEGATE_TEST_PYTHON=$(abspath $(PYTHON)) PATH="$$PATH:/usr/sbin" cargo test --workspace --locked

.PHONY: test-c
test-c: ## The C library for devices without an operating system, with its example
	$(MAKE) -C clients/c test

.PHONY: test-python
test-python: $(PYTHON) web/dist/index.html ## The Python package, against the real binary
	cargo build --locked --bin tidegate
	TIDEGATE_BIN=$(abspath target/debug/tidegate) PATH="$(abspath target/python/bin):$$PATH" pytest -c clients/python/pyproject.toml clients/python/tests

.PHONY: test-web
test-web: web/node_modules/.package-lock.json ## Component tests of the page
	cd web && npm test

.PHONY: test-e2e
test-e2e: web/dist/index.html ## The page in a real browser, against the real binary
	cargo build --locked --bin tidegate
	cd web && TIDEGATE_BIN=$(abspath target/debug/tidegate) npm run e2e

.PHONY: protocol
protocol: ## Write the TypeScript types of the page's stream
	cargo run -q --locked -p tidegate-serve --example protocol > target/protocol.ts
	mv target/protocol.ts web/src/lib/protocol.ts

.PHONY: bench
bench: build setup-apt ## Measure; compares with Mosquitto and Python in the same run
	PATH="$$PATH:/usr/sbin" target/release/tidegate bench verify
	PATH="$$PATH:/usr/sbin" target/release/tidegate bench latency
	PATH="$$PATH:/usr/sbin" target/release/tidegate bench rate
	PATH="$$PATH:/usr/sbin" target/release/tidegate bench footprint
	PATH="$$PATH:/usr/sbin" target/release/tidegate bench durable
	PATH="$$PATH:/usr/sbin" target/release/tidegate bench scale
	PATH="$$PATH:/usr/sbin" target/release/tidegate bench handshake
	PATH="$$PATH:/usr/sbin" target/release/tidegate bench sessions
	PATH="$$PATH:/usr/sbin" target/release/tidegate bench revoke
	PATH="$$PATH:/usr/sbin" target/release/tidegate bench flood
	target/release/tidegate bench detect

.PHONY: prove
prove: build setup prove-build setup-mutants ## Prove the replay guard in full (about two hours); writes docs/proofs.md
	export PATH="$$PATH:/usr/sbin"
	$(PROVE) model
	$(PROVE) simulate
	$(PROVE) publisher-kill
	$(PROVE) exhaustion
	$(PROVE) power-cut
	$(PROVE) kill
	$(PROVE) fuzz
	$(PROVE) mutants
	$(PROVE) report

.PHONY: prove-build
prove-build:
	cargo build --release --locked -p tidegate-prove

.PHONY: deny
deny: ## Check licences and sources of dependencies
	command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny check bans licenses sources

.PHONY: clean
clean: ## Remove what was built
	rm -rf target web/dist web/node_modules demo
