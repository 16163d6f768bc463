# One way in. Every target sets up what it needs; `.venv` at the root is the one environment.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 30

.PHONY: demo test lint types bench docs clean setup lock bundles moto thespian-suite

demo: $(VENV)/.parent  ## five simulated enclaves certify a chain's state and name the one that lies
	$(BIN)/teactl demo

test: $(VENV)/.dev  ## all tests, with branch coverage of the trust core and the protocol
	$(BIN)/pytest --cov --cov-report=term:skip-covered
	$(BIN)/coverage report --include='trust/*,protocol/*' --fail-under=95

thespian-suite: $(VENV)/.dev  ## Thespian's own tests, from its source distribution, inside the workers of an enclave
	TEA_THESPIAN_ALL=1 $(BIN)/pytest -s tests/runtime/test_thespian_suite.py

lint: $(VENV)/.dev  ## ruff and the layer contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev  ## mypy --strict
	$(BIN)/mypy

bench: $(VENV)/.bench  ## benchmarks; the figures go to docs/performance.md by hand
	$(BIN)/python -m bench

docs: $(VENV)/.dev  ## check that what the docs show is what runs
	$(BIN)/pytest tests/docs

bundles: $(VENV)/.parent  ## build and sign the actors that ship with this machine's development key
	$(BIN)/teactl bundle build --development --out build/bundles actors/*/bundle.yaml

setup: $(VENV)/.dev  ## the environment with everything

# Hashes are checked, and sources are built with the locked build tools: nothing unlocked is ever run.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
$(VENV)/.parent: requirements/build.txt requirements/parent.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements/build.txt
	$(PIP) --require-hashes --no-build-isolation -r requirements/parent.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.parent requirements/dev.txt
	$(PIP) --require-hashes --no-build-isolation -r requirements/dev.txt
	touch $@

$(VENV)/.bench: $(VENV)/.dev requirements/bench.txt
	$(PIP) --require-hashes --no-build-isolation -r requirements/bench.txt
	touch $@

# A stand-in for AWS's services, for the tests of KMS signers: an environment of its own, since it brings fifty packages.
moto: build/moto/.done  ## set up moto's server, which some tests then use
build/moto/.done: requirements/moto.txt
	test -x build/moto/bin/python || $(PYTHON) -m venv build/moto
	build/moto/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/moto.txt
	touch $@

COMPILE := uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --no-emit-package tea-runtime
lock:  ## write the locks anew from pyproject.toml (needs uv)
	$(COMPILE) -o requirements/build.txt requirements/build.in
	$(COMPILE) -o requirements/enclave.txt requirements/enclave.in
	$(COMPILE) -o requirements/parent.txt requirements/parent.in
	$(COMPILE) -o requirements/dev.txt requirements/dev.in
	$(COMPILE) -o requirements/bench.txt requirements/bench.in
	$(COMPILE) -o requirements/moto.txt requirements/moto.in

clean:  ## what was made here; development keys in .tea stay
	rm -rf $(VENV) build dist *.egg-info .coverage htmlcov .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis demo-out

-include tests/fuzz/fuzz.mk
-include enclave_image/image.mk
