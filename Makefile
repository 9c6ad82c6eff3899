# Every target sets up what it needs: the virtual environment is made once and renewed when the pins change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROTOS := $(wildcard protos/onecard/v1/*.proto)

# What the tests need of the system, beside Python: the one list of it.
PACKAGES := softhsm2 p11-kit-modules

.PHONY: help setup packages demo serve test test-shards proof check proto bench load clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 13

setup: $(STAMP) ## the virtual environment with every pinned dependency

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,load,pkcs11]'
	@touch $@

demo: $(STAMP) ## a day of the card, through real gRPC with TLS, on an embedded PostgreSQL
	$(BIN)/python -m clients.demo

serve: $(STAMP) ## the core in the foreground, on its embedded PostgreSQL
	$(BIN)/onecard serve

packages: ## the system's packages that the tests need: installed as root, told otherwise
	@missing=$$(for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || echo $$package; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "packages: install as root:" $$missing >&2; exit 1; fi; \
	install() { DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends $$missing; }; \
	install || { apt-get update --quiet && install; }

test: packages $(STAMP) ## the whole test suite
	$(BIN)/pytest

test-shards: packages $(STAMP) ## the tests of running cores once more, on databases of four shards
	ONECARD_TEST_SHARDS=4 $(BIN)/pytest tests/integration tests/property tests/faults

check: $(STAMP) ## format, lint, types, import contracts, protos, committed stubs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/python protos/generate.py --check

proof: packages $(STAMP) ## every kind of money operation against its model, many times over
	ONECARD_MODEL_EXAMPLES=2000 $(BIN)/pytest tests/property/test_all_operations_against_model.py

proto: $(STAMP) ## regenerate the committed stubs
	$(BIN)/python protos/generate.py

bench: $(STAMP) ## every benchmark suite with its baselines
	$(BIN)/onecard bench

load: $(STAMP) ## the province's peak minute against a core of its own, checked in its books
	$(BIN)/python -m loadtests

clean: ## remove the virtual environment and caches (never data)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
