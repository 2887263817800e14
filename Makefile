# Needs Python 3.11 or newer and the package registries; everything else is made here.
PYTHON ?= python3
BIN := .venv/bin
# A `.venv` is right when it was made from this lock file.
STAMP := .venv/.made-from-lock

.PHONY: setup demo test lint bench bench-batch bench-large memory faults fuzz chaos controls clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "deptbus needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	$(BIN)/deptbus demo

test: setup
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if command -v go >/dev/null; then cd tests/go && test -z "$$(gofmt -l . | tee /dev/stderr)" && go vet ./...; \
	else echo "go is not installed: tests/go is not checked"; fi

bench: setup
	$(BIN)/python -m tests.bench

bench-batch: setup
	$(BIN)/python -m tests.bench.batch

bench-large: setup
	$(BIN)/python -m tests.bench.large

memory: setup
	$(BIN)/python -m tests.bench.memory

faults: setup
	$(BIN)/python -m tests.faults

fuzz: setup
	$(BIN)/python -m tests.fuzz

chaos: setup
	$(BIN)/python -m tests.chaos

controls: setup
	$(BIN)/python -m tests.controls

clean:
	rm -rf .venv .deptbus build *.egg-info
