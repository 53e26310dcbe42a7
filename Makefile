# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.
# Needs Rust, a C compiler and Python 3.10 or newer. Everything else goes into .venv and target.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# cargo decides how many compilers run at a time, even when make runs two goals at a time.
APART := env -u MAKEFLAGS -u MFLAGS
CARGO := $(APART) cargo
export PYO3_PYTHON := $(abspath $(BIN))/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1

RUST_SOURCES := Cargo.toml Cargo.lock $(shell find src -name '*.rs')
PROGRAM := $(abspath $(or $(CARGO_TARGET_DIR),target))/release/ottla
PYTHON_SOURCES := pyproject.toml README.md $(shell find python -name '*.py' -o -name '*.pyi' -o -name py.typed)

# The steps of `make test`, in order; cheap ones first.
STEPS := check-format rust-and-wheel check-python python-test readme-test notebook-test

.PHONY: help demo test clippy rust-test kafka-test rust wheel bench versus versus-tables bench-guard bench-compare simulate simulate-night kill-transactions table-kills engines fuzz fuzz-sample format $(STEPS)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## build, install into .venv, and run the main job on real flights
	$(BIN)/python -m ottla.demo

test: ## everything that must pass: format, lints, Rust and Python tests, README, notebook
	@total=$$(date +%s); \
	for step in $(STEPS); do \
	  echo "=== $$step"; begin=$$(date +%s); \
	  $(MAKE) --no-print-directory $$step || { echo "=== $$step failed after $$(( $$(date +%s) - begin )) s"; exit 1; }; \
	  echo "=== $$step took $$(( $$(date +%s) - begin )) s"; \
	done; \
	echo "=== all steps passed in $$(( $$(date +%s) - total )) s"

check-format: $(VENV)/.test ## format and lints of Python, format of Rust
	$(CARGO) fmt --check
	$(BIN)/ruff format --check python tests/python tests/bench
	$(BIN)/ruff check python tests/python tests/bench

# Neither the lints and tests nor the wheel build keep all cores busy all the time.
rust-and-wheel: $(VENV)/.created ## clippy, rust-test and kafka-test, and beside them wheel
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target rust wheel

rust:
	$(MAKE) --no-print-directory clippy
	$(MAKE) --no-print-directory rust-test
	$(MAKE) --no-print-directory kafka-test

clippy: $(VENV)/.created ## Rust lints; warnings are errors
	$(CARGO) clippy --all-targets --features sim,python -- -D warnings

rust-test: ## Rust tests, without Python
	$(CARGO) test --features sim

kafka-test: ## Rust tests that need Java and Apache Kafka's jars, in the folder OTTLA_KAFKA_LIBS
	@if [ -z "$${OTTLA_KAFKA_LIBS:-}$${OTTLA_REQUIRE_ALL:-}" ]; then \
	  echo "skipped: OTTLA_KAFKA_LIBS does not name the folder of Apache Kafka's jars"; \
	else \
	  begin=$$(date +%s); \
	  $(CARGO) test --features sim --test conformance --test storage --test wire -- --ignored --skip tools:: --skip frameworks:: && \
	  $(CARGO) test --features sim --test conformance -- --ignored tools:: frameworks:: || exit 1; \
	  echo "=== kafka-test took $$(( $$(date +%s) - begin )) s"; \
	fi

wheel: $(VENV)/.wheel ## build the release wheel and install it into .venv

check-python: $(VENV)/.test $(VENV)/.wheel ## types of the Python side, and stubs against the built module
	$(BIN)/mypy
	cd $(VENV) && bin/python -m mypy.stubtest ottla._ottla --mypy-config-file $(abspath pyproject.toml)

python-test: $(VENV)/.test $(VENV)/.wheel ## Python tests, with Kafka clients that were not written here
	$(CARGO) build --quiet --features sim --bin ottla --example check_history
	OTTLA_DEBUG_BIN="$${CARGO_TARGET_DIR:-$(abspath target)}/debug/ottla" $(BIN)/python -m pytest -n 2 --dist loadfile

engines: $(VENV)/.engines $(VENV)/.wheel ## Dask, Ray and Spark on topics, and the examples of the manual's page about them; needs Java
	OTTLA_ENGINES=1 $(VENV)/engines/bin/python -m pytest tests/python/engines
	PYSPARK_PYTHON=$(abspath $(VENV))/engines/bin/python $(VENV)/engines/bin/python tests/python/run_readme.py --only-pages src/manual/engines.md

readme-test: $(VENV)/.test $(VENV)/.wheel ## the examples of README.md and of the docstrings
	$(BIN)/python tests/python/run_readme.py README.md

notebook-test: $(VENV)/.notebook $(VENV)/.wheel ## execute the notebooks
	$(BIN)/python tests/python/run_notebooks.py notebooks

bench: $(VENV)/.test $(VENV)/.wheel $(PROGRAM) ## Rust micro-benchmarks and the end-to-end run; prints machine, command, medians
	$(CARGO) bench
	OTTLA_BIN=$(PROGRAM) $(BIN)/python tests/bench/end_to_end.py
	$(BIN)/python tests/bench/groups.py

VERSUS_COMMAND := PYTHONPATH=tests/bench:tests/python OTTLA_QUIX_PYTHON=$(abspath $(VENV))/quix/bin/python OTTLA_BYTEWAX_PYTHON=$(abspath $(VENV))/bytewax/bin/python $(BIN)/python -m versus
RUN ?= $(shell git describe --always --dirty 2>/dev/null || echo tree)

versus: $(VENV)/.notebook $(VENV)/.quix $(VENV)/.bytewax $(VENV)/.wheel $(PROGRAM) ## beside Apache Kafka and its clients, 40 minutes; OTTLA_KAFKA_LIBS: its jars; VERSUS: options
	OTTLA_BIN=$(PROGRAM) $(VERSUS_COMMAND) --json build/bench/versus-$(RUN).json --picture build/bench/versus-$(RUN).png $(VERSUS)

versus-tables: $(VENV)/.test $(VENV)/.quix $(VENV)/.bytewax $(VENV)/.wheel $(PROGRAM) ## a table over CHANGES=10000000 changes beside polars and pandas, and windows beside Quix Streams and Bytewax
	OTTLA_BIN=$(PROGRAM) $(VERSUS_COMMAND) --ours --part tables --part windows --rounds $(or $(ROUNDS),3) --changes $(or $(CHANGES),10000000) --json build/bench/tables-$(RUN).json

bench-guard: $(VENV)/.test $(VENV)/.wheel $(PROGRAM) ## the few ratios that must not fall, without Apache Kafka, into build/bench/RUN.json
	OTTLA_BIN=$(PROGRAM) $(VERSUS_COMMAND) --ours --part throughput --part frames --json build/bench/$(RUN).json $(VERSUS)

bench-compare: $(VENV)/.test ## compare the ratios of two runs: BEFORE=main.json AFTER=branch.json [THRESHOLD=0.1]; fails on a loss
	$(VERSUS_COMMAND) compare $(BEFORE) $(AFTER) --threshold $(or $(THRESHOLD),0.1)

# The flags that cargo-fuzz passes without a sanitizer; a stable compiler knows all of them.
# libFuzzer needs a C++ compiler.
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
TARGETS ?= $(basename $(notdir $(wildcard tests/fuzz/fuzz_targets/*.rs)))
SECONDS_EACH ?= 60

simulate: ## many runs of one broker, of one with its tier in a bucket, of clusters and of transactions on both, on fresh seeds (RUNS=100 of each), each twice; a failure prints its replay
	OTTLA_SIM_RUNS=$(or $(RUNS),100) $(CARGO) test --features sim --test simulation -- --nocapture --test-threads=1 broker::fresh tiered::fresh bucket::fresh cluster::fresh alone::fresh together::fresh

simulate-night: ## clusters, without and with transactions, on fresh seeds until the clients of each have asked for something OPERATIONS=1000000 times
	OTTLA_SIM_OPERATIONS=$(or $(OPERATIONS),1000000) $(CARGO) test --features sim --test simulation -- --nocapture --test-threads=1 cluster::fresh together::fresh

kill-transactions: $(VENV)/.test $(VENV)/.wheel ## brokers under transactional clients are killed KILLS=20 times, one node and three
	OTTLA_KILLS=$(or $(KILLS),20) $(BIN)/python -m pytest -s tests/python/crash/test_transactions.py

table-kills: $(VENV)/.test $(VENV)/.wheel ## a table over CHANGES=10000000 changes of a tenth as many keys, killed KILLS=10 times, against batch queries
	OTTLA_TABLE_CHANGES=$(or $(CHANGES),10000000) OTTLA_TABLE_KILLS=$(or $(KILLS),10) $(BIN)/python -m pytest -s tests/python/crash/test_table_at_scale.py

fuzz: ## let libFuzzer search in every fuzz target for a minute (TARGETS, SECONDS_EACH); needs a C++ compiler
	OTTLA_FUZZ_CORPUS=$(abspath tests/fuzz/target/corpus) $(CARGO) test --features sim --test fuzz corpus_is_written
	cd tests/fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --target-dir target --target "$$(rustc -vV | sed -n 's/^host: //p')" $(addprefix --bin ,$(TARGETS)) # with a target, so that build scripts are built without them
	cd tests/fuzz && failed=; for target in $(TARGETS); do \
	  mkdir -p artifacts/$$target target/found/$$target; \
	  ./target/*/debug/$$target -max_total_time=$(SECONDS_EACH) -rss_limit_mb=1024 -max_len=4096 \
	    -artifact_prefix=artifacts/$$target/ target/found/$$target target/corpus/$$target || failed="$$failed $$target"; \
	done; [ -z "$$failed" ] || { echo "found something:$$failed; the inputs are in tests/fuzz/artifacts"; exit 1; }

fuzz-sample: ## the fuzz targets on their corpus and some thousand mutations; a part of rust-test
	$(CARGO) test --features sim --test fuzz

format: $(VENV)/.test ## format Rust and Python
	$(CARGO) fmt
	$(BIN)/ruff format python tests/python tests/bench
	$(BIN)/ruff check --fix python tests/python tests/bench

# cargo decides whether it is up to date: the folder may be shared with other trees.
$(PROGRAM): always
	$(CARGO) build --release --locked --bin ottla

.PHONY: always
always:

# --- the local virtual environment; a stamp per set of packages -----------------------------------

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip 'maturin>=1.9,<2'
	touch $@

$(VENV)/.wheel: $(VENV)/.created $(RUST_SOURCES) $(PYTHON_SOURCES)
	rm -rf build/wheel
	$(APART) $(BIN)/maturin build --release --locked --out build/wheel
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall build/wheel/ottla-*.whl
	touch $@

$(VENV)/.demo: $(VENV)/.wheel
	$(BIN)/python -m pip install --quiet "$$(ls build/wheel/ottla-*.whl)[demo]"
	touch $@

$(VENV)/.test: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --group test --group lint
	touch $@

$(VENV)/.notebook: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group notebook
	touch $@

# Finds the tests' packages, too, by the path of their environment.
SITE_PACKAGES := import sysconfig; print(sysconfig.get_path("purelib"))

$(VENV)/.engines: $(VENV)/.test pyproject.toml
	$(PYTHON) -m venv $(VENV)/engines
	$(BIN)/python -c '$(SITE_PACKAGES)' > "$$($(VENV)/engines/bin/python -c '$(SITE_PACKAGES)')/tests.pth"
	$(VENV)/engines/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/engines/bin/python -m pip install --quiet --group engines
	touch $@

# Quix Streams needs a different confluent-kafka version than the tests; without it, its rows say
# that it is missing.
$(VENV)/.quix: $(VENV)/.created pyproject.toml
	$(PYTHON) -m venv $(VENV)/quix
	$(VENV)/quix/bin/python -m pip install --quiet --group quix || echo "Quix Streams could not be installed; its rows will say so"
	touch $@

$(VENV)/.bytewax: $(VENV)/.created pyproject.toml
	$(PYTHON) -m venv $(VENV)/bytewax
	$(VENV)/bytewax/bin/python -m pip install --quiet --group bytewax || echo "Bytewax could not be installed; its rows will say so"
	touch $@
