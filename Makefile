# Each target sets itself up: nothing has to be installed before but Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DELETE_ON_ERROR:
.PHONY: run test lint docs browser screenshots promtool licences sbom audit bench bench-quick scale lock fuzz api-fuzz soak fuzz-coverage

run: .venv/run
	@$(BIN)/pleo-proxy demo

test: lint
	$(BIN)/python -m pytest

# The browser that tests/browser tries the proxy with: Debian's, if there is none. Root's business.
CHROMIUM := /usr/bin/chromium
SUDO := $(if $(filter 0,$(shell id -u)),,$(shell command -v sudo))
browser:
	@test -x $(CHROMIUM) || { test "$$(id -u)" = 0 || command -v sudo >/dev/null; } || \
	    { echo "$(CHROMIUM) is missing; as root: apt-get install --no-install-recommends chromium" >&2; exit 1; }
	@test -x $(CHROMIUM) || $(SUDO) apt-get install -y --no-install-recommends chromium || \
	    { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends chromium; }

# Prometheus' own tool, with which tests/test_promtool.py tries metrics, rules and queries: Debian's, if there is none.
promtool:
	@command -v promtool >/dev/null || $(SUDO) apt-get install -y --no-install-recommends prometheus || \
	    { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends prometheus; }

# Pictures of every page for the documents, and the page that shows them. Look at each before you commit it.
screenshots: .venv/dev browser
	@$(BIN)/python -m tests.browser.screenshots

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site, in build/site. (Not with --quiet: what is not said counts for nothing in its strictness.)
docs: .venv/dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --config-file docs/site/mkdocs.yml
	@echo "Open build/site/index.html, or serve it: python3 -m http.server --directory build/site"

# What a request costs, here and in other proxies; writes docs/performance.md. Needs nginx and wrk, and two cores.
bench: .venv/dev
	@$(BIN)/python -m benchmarks --install --write

bench-quick: .venv/dev
	@$(BIN)/python -m benchmarks --install --quick

# What grows with the number of tenants (docs/scaling.md). Needs nginx and wrk, and two cores.
scale: .venv/dev
	@$(BIN)/python -m benchmarks.growth

# Damaged requests and answers for so long each; a finding names the seed that plays it again.
SECONDS ?= 60
fuzz: .venv/dev
	WIRE_FUZZ_S=$(SECONDS) WIRE_FUZZ_SEED=$$(date +%s) $(BIN)/python -m pytest tests/wire/test_wire_fuzz.py

# Generated requests to the running API for about so long, held to docs/openapi.json; names its seed.
api-fuzz: .venv/dev
	API_FUZZ_S=$(SECONDS) API_FUZZ_SEED=$${API_FUZZ_SEED:-$$(date +%s)} $(BIN)/python -m pytest tests/test_api_fuzz.py

# Inputs that reach new code, searched for by atheris for so long in each module of tests/fuzz; stops at a finding,
# whose file it names. What was interesting is kept in .fuzz for the next time.
fuzz-coverage: .venv/dev
	for module in target_and_policy token_answer configuration sealed_values; do \
	    $(BIN)/python -m tests.fuzz.coverage $$module --seconds $(SECONDS) --corpus .fuzz/$$module/corpus || exit 1; \
	done

# The tests of the wire in full: many more cases, 64 bodies of 10 MiB at once, 10,000 idle callers; 20,000
# schedules of the simulation; and processes killed for ten minutes with each kind of store. Shows figures.
soak: .venv/dev
	WIRE_CASES=20000 WIRE_LARGE=8 WIRE_BODIES=64 WIRE_IDLE=10000 \
	    $(BIN)/python -m pytest tests/wire --log-cli-level=INFO --durations=10
	SIMULATION_SCHEDULES=20000 $(BIN)/python -m pytest tests/simulation --durations=10
	SOAK_S=600 SOAK_TENANTS=50 $(BIN)/python -m pytest tests/test_soak.py --log-cli-level=INFO

# Writes docs/licences.md.
licences: .venv/dev
	@$(BIN)/python -m supply licences

# The bill of materials (CycloneDX) as build/sbom.cdx.json, from requirements.lock.
sbom: .venv/dev
	@$(BIN)/python -m supply sbom

# Known vulnerabilities of all packages that run. Error 1 if there are some; Error 2 if nobody could be asked.
audit: .venv/dev
	@$(BIN)/python -m supply audit

# Resolves the newest versions that pyproject.toml allows; hashes for every platform, no index named. What runs
# gets the versions that are tested: a lock file that exists is what uv keeps to.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header
lock: .venv/bin/python
	$(PIP) install uv
	$(COMPILE) --upgrade --group dev pyproject.toml -o requirements-dev.lock
	cp requirements-dev.lock requirements.lock
	$(COMPILE) --group build pyproject.toml -o requirements.lock
	cp requirements-dev.lock requirements-extras.lock
	$(COMPILE) --group build --extra postgres --extra aws --extra otel pyproject.toml -o requirements-extras.lock

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "pleo-proxy needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up .venv (once) ..."
	@$(PYTHON) -m venv .venv

.venv/run: .venv/bin/python requirements.lock pyproject.toml
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: .venv/run requirements-dev.lock
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@
