# `make run` starts the sandbox. `make test` is for every change, `make check` is the rest of the gate.
# All set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Python 2.7 can run this too.
CHECK_PYTHON = $(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit( \
	"wxauth needs Python 3.11 or later; this is %d.%d. Name a newer one: make run PYTHON=python3.12" % v)'

.PHONY: run test check lint faults fuzz bench bench-report docs screenshot animation timings clean

run: $(VENV)/run
	$(BIN)/python app.py

# A file stays in one process: several share a server, or are in order. conftest.py says which tests `check` marks.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --durations 15

# The tests wait a part of the time, so there are three processes for two processors. With four, `make test` takes longer.
test check: export PYTEST_XDIST_AUTO_NUM_WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN) '*' 3 / 2)
test: $(VENV)/dev
	$(PYTEST) -m "not check"

# Without npm, the tests of the mini program's types, of openapi.yaml's style and of the TypeScript client are skipped.
NODE_MODULES := tests/miniprogram/node_modules tests/clients/node_modules
# Debian's mod_wsgi runs the service with Debian's Python. Without mod_wsgi, its tests are skipped.
DEBIAN := .venv-debian
check: lint .venv-docs/done $(if $(shell command -v npm 2>/dev/null),$(NODE_MODULES:=/done)) \
		$(if $(wildcard /usr/lib/apache2/modules/mod_wsgi.so),$(DEBIAN)/done)
	$(BIN)/lint-imports
	$(PYTEST) -m check

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(NODE_MODULES:=/done): %/node_modules/done: %/package-lock.json
	cd $* && npm ci --no-audit --no-fund
	touch $@

$(DEBIAN)/done: requirements.txt
	/usr/bin/python3 -m venv --clear $(DEBIAN)
	$(DEBIAN)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# The faults with the counts of the specification; `make check` runs them with small ones. Tests that judge latencies run
# alone, after all others, which run side by side. Their limits are for a Python that is built with all optimisations, as
# the system's is, and for a quiet machine: `make faults PYTHON=/usr/bin/python3` in a fresh clone.
FAULTS_RUN = FAULTS=full $(BIN)/python -m pytest tests/faults -v --timeout 3600 --durations 15
faults: $(VENV)/dev
	$(FAULTS_RUN) -m "not timed" -n 3 --dist worksteal; first=$$?; $(FAULTS_RUN) -m timed && exit $$first

# Coverage-guided fuzzing; SECONDS=600 for longer.
SECONDS ?= 60
fuzz: $(VENV)/dev
	$(BIN)/python -m tests.fuzz $(SECONDS)

# Compare the service with its alternatives; see benchmarks/README.md. It needs two cores of a quiet machine, Node 20 with
# npm, and from Debian: python3-venv wrk redis-server nginx-light libnginx-mod-http-lua lua-resty-core lua-nginx-redis
# util-linux. The system's Python is built with all optimisations; one built from source often is not.
BENCH_PYTHON ?= $(or $(wildcard /usr/bin/python3),$(PYTHON))
ROUNDS ?= 10
SECONDS_EACH = $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS),2)
SEED ?= 1
BENCH ?=
bench: .venv-bench/done benchmarks/node/node_modules/done
	.venv-bench/bin/python -m benchmarks --rounds $(ROUNDS) --seconds $(SECONDS_EACH) --seed $(SEED) $(BENCH)

# Write the tables and charts again from benchmarks/results.json.
bench-report: .venv-bench/done
	.venv-bench/bin/python -m benchmarks --report

.venv-bench/done: requirements.txt benchmarks/requirements.txt
	$(BENCH_PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	touch $@

benchmarks/node/node_modules/done: benchmarks/node/package-lock.json
	cd benchmarks/node && npm ci --no-audit --no-fund
	touch $@

# The documentation as a website, in build/docs. It fails if a link leads nowhere.
docs: .venv-docs/done
	.venv-docs/bin/python docs/build.py

.venv-docs/done: docs/requirements.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	touch $@

# The picture in the documentation, a scan. It needs, from Debian: chromium chromium-driver fonts-noto-cjk pngquant.
screenshot: $(VENV)/dev
	$(BIN)/python -m tests.support.browser docs
	pngquant --force --strip --ext .png docs/scan-login.png

# The animations of the READMEs. They need, from Debian: chromium chromium-driver fonts-noto-cjk webp.
animation: $(VENV)/dev
	$(BIN)/python -m tests.support.animation

# Write into the READMEs how long `make run` and `make test` take in a new clone of the last commit.
timings: $(VENV)/dev
	$(BIN)/python -m tests.support.timings

$(VENV)/run: requirements.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/dev: requirements.txt requirements-dev.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/run

clean:
	rm -rf $(VENV) $(DEBIAN) .venv-bench .venv-docs benchmarks/node/node_modules $(NODE_MODULES)
