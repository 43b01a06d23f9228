# What people and CI run. Needs cargo, a C compiler and make; Redis is installed if there is none.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.PHONY: help run test check check-engines audit drill formal fuzz fuzz-api fmt setup

# A released version, so that a check that passed today passes tomorrow. Built once (3 minutes on two
# cores), kept in target/tools.
CARGO_DENY_VERSION := 0.20.2
TOOLS := target/tools
CARGO_FUZZ_VERSION := 0.13.1
CARGO_FUZZ := $(TOOLS)/cargo-fuzz-$(CARGO_FUZZ_VERSION)/bin/cargo-fuzz
CARGO_DENY := $(TOOLS)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny

help: ## What can be made
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)$$/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: setup ## Start tokend with an embedded Redis, on http://127.0.0.1:3000 unless .env says otherwise
	cargo run --release --locked -- serve

test: ## Run all tests, and list those that were skipped
	@scripts/setup.sh tests
	@mkdir -p target
	cargo test --locked --lib --bins --tests --examples 2>&1 | tee target/test-output.txt
	cargo test --locked --doc 2>&1 | tee -a target/test-output.txt
	@scripts/skipped-tests.sh target/test-output.txt

check: $(CARGO_DENY) ## All that CI checks: format, lints, documentation, dependencies, tests
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	$(CARGO_DENY) --locked check licenses bans sources
	$(MAKE) --no-print-directory test

check-engines: ## Run the tests of all that acts on Redis on Redis 7, Valkey and Redis 8, alone and as a Cluster
	@scripts/engines.sh

audit: $(CARGO_DENY) ## Look for known vulnerabilities among the dependencies (needs the network)
	@if $(CARGO_DENY) --locked fetch db; then \
		$(CARGO_DENY) --locked check --disable-fetch advisories; \
	else \
		echo "audit: skipped, the advisory database could not be fetched"; \
	fi

drill: setup ## Kill, stall and flood real processes, and print the figures (25 minutes)
	cargo build --release --locked --bins --example drill
	target/release/examples/drill

formal: ## Explore the formal model of the wheel and the fence further than the tests do (2 minutes)
	TOKEND_FORMAL_LARGE=1 cargo test --release --locked --test formal -- --test-threads 1

# How long `make fuzz` tries each target; `make fuzz FUZZ_S=600` for longer.
FUZZ_S := 30

# The service has no unsafe code that a sanitizer could judge, and without one a run is several times as fast. The
# instrumentation is allowed on a released compiler by RUSTC_BOOTSTRAP.
fuzz: $(CARGO_FUZZ) ## Try all that is parsed with bytes of all kinds, and print runs and crashes
	RUSTC_BOOTSTRAP=1 $(CARGO_FUZZ) build --sanitizer none --target-dir target/fuzz
	@scripts/fuzz.sh $(FUZZ_S)

fuzz-api: ## Try the API with requests made from its own document (needs python3; 2 minutes)
	@scripts/setup.sh tests
	scripts/schemathesis.sh

fmt: ## Format the code
	cargo fmt

setup:
	@scripts/setup.sh

$(CARGO_DENY):
	cargo install cargo-deny --version $(CARGO_DENY_VERSION) --locked \
		--root $(TOOLS)/cargo-deny-$(CARGO_DENY_VERSION) --target-dir $(TOOLS)/build
	rm -rf $(TOOLS)/build

$(CARGO_FUZZ):
	cargo install cargo-fuzz --version $(CARGO_FUZZ_VERSION) --locked \
		--root $(TOOLS)/cargo-fuzz-$(CARGO_FUZZ_VERSION) --target-dir $(TOOLS)/build
	rm -rf $(TOOLS)/build
