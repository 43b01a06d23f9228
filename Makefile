# What people and CI run. Needs cargo, a C compiler and make; Redis is installed if there is none.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.PHONY: help run test check image check-image check-engines audit sbom drill formal fuzz fuzz-api fmt setup

# Released versions, so that a check that passed today passes tomorrow. Each is built once, when it is first needed (1 to
# 3 minutes on two cores), and kept in target/tools.
CARGO_DENY_VERSION := 0.20.2
CARGO_MACHETE_VERSION := 0.9.2
CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_FUZZ_VERSION := 0.13.1
TOOLS := target/tools
CARGO_DENY := $(TOOLS)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
CARGO_MACHETE := $(TOOLS)/cargo-machete-$(CARGO_MACHETE_VERSION)/bin/cargo-machete
CARGO_CYCLONEDX := $(TOOLS)/cargo-cyclonedx-$(CARGO_CYCLONEDX_VERSION)/bin/cargo-cyclonedx
CARGO_FUZZ := $(TOOLS)/cargo-fuzz-$(CARGO_FUZZ_VERSION)/bin/cargo-fuzz

# The commit that is built, told by `tokend --version` and in the metrics; nothing where this is no git checkout.
REVISION = $(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null)

help: ## What can be made
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)$$/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: setup ## Start tokend with an embedded Redis, on http://127.0.0.1:3000 unless .env says otherwise
	TOKEND_REVISION=$(REVISION) cargo run --release --locked -- serve

test: ## Run all tests, and list those that were skipped
	@scripts/setup.sh tests
	@mkdir -p target
	cargo test --locked --lib --bins --tests --examples 2>&1 | tee target/test-output.txt
	cargo test --locked --doc 2>&1 | tee -a target/test-output.txt
	@scripts/skipped-tests.sh target/test-output.txt

check: $(CARGO_DENY) $(CARGO_MACHETE) ## All that CI checks: format, lints, documentation, dependencies, tests
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	$(CARGO_DENY) --locked check licenses bans sources
	$(CARGO_MACHETE) --skip-target-dir
	$(MAKE) --no-print-directory test

image: ## Build the image tokend:dev on the Docker engine that answers
	docker build --build-arg REVISION=$(REVISION) --tag tokend:dev .

check-image: ## Build the image, with base images made here where no registry answers, and try it (10 minutes)
	@scripts/check-image.sh

check-engines: ## Run the tests of all that acts on Redis on Redis 7, Valkey and Redis 8, alone and as a Cluster
	@scripts/engines.sh

audit: $(CARGO_DENY) ## Look for known vulnerabilities among the dependencies (needs the network)
	@if $(CARGO_DENY) --locked fetch db; then \
		$(CARGO_DENY) --locked check --disable-fetch advisories; \
	else \
		echo "audit: skipped, the advisory database could not be fetched"; \
	fi

sbom: $(CARGO_CYCLONEDX) ## Write the software bill of materials (CycloneDX) to target/tokend.cdx.json
	@scripts/sbom.sh $(CARGO_CYCLONEDX) target/tokend.cdx.json

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

# $(call install,NAME,VERSION): the binary of a crate into $(TOOLS)/NAME-VERSION
define install
	cargo install $(1) --version $(2) --locked --root $(TOOLS)/$(1)-$(2) --target-dir $(TOOLS)/build
	rm -rf $(TOOLS)/build
endef

$(CARGO_DENY):
	$(call install,cargo-deny,$(CARGO_DENY_VERSION))

$(CARGO_MACHETE):
	$(call install,cargo-machete,$(CARGO_MACHETE_VERSION))

$(CARGO_CYCLONEDX):
	$(call install,cargo-cyclonedx,$(CARGO_CYCLONEDX_VERSION))

$(CARGO_FUZZ):
	$(call install,cargo-fuzz,$(CARGO_FUZZ_VERSION))
