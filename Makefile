# Two commands: `make run` (the sandbox) and `make test`. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test faults fuzz lint clean

run: $(VENV)/run
	$(BIN)/python app.py

test: lint
	$(BIN)/python -m pytest

# The faults with the counts of the specification; `make test` runs them small.
faults: $(VENV)/dev
	FAULTS=full $(BIN)/python -m pytest tests/faults -v --timeout 3600

# Coverage-guided fuzzing; SECONDS=600 for longer.
SECONDS ?= 60
fuzz: $(VENV)/dev
	$(BIN)/python -m tests.fuzz $(SECONDS)

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/dev: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/run

clean:
	rm -rf $(VENV)
