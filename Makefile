# Two commands for a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo audit test lint wheel docs bounds clean

demo: $(VENV)/demo
	$(BIN)/somatlas run

# The audit that docs/audit.md shows, made again: some ten minutes on two idle cores. It goes on
# where it was; `make clean` forgets it.
AUDIT := build/audit/smollm2-hardened/audit-against-smollm2-guarded
audit: $(VENV)/demo
	$(BIN)/somatlas audit smollm2-hardened --against smollm2-guarded --plan quick --out build/audit
	mkdir -p docs/audit
	cp $(AUDIT)/audit.json $(AUDIT)/audit.html $(AUDIT)/table.txt $(AUDIT)/figures/frontier.svg docs/audit

test: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation, into build/site; a link or a name that leads nowhere is an error.
docs: $(VENV)/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The wheel, installed alone into a clean environment, must start and find its data.
wheel: $(VENV)/dev
	rm -rf build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet build/wheel/*.whl
	cd build/wheel && venv/bin/somatlas --version && venv/bin/python ../../tests/wheel_data.py

# What the package is built on, at the lowest versions that pyproject.toml allows: a nightly target.
# Not every architecture: transformers 5.1 has fewer, and faults of its own in some (Jamba, xLSTM).
BOUNDS := tests/ablation tests/exports tests/representations tests/searches \
	tests/models/test_generation.py tests/models/test_packed.py -k "not every_architecture"
bounds:
	rm -rf build/bounds
	$(PYTHON) -m venv build/bounds
	$(PYTHON) tests/lowest.py > build/bounds/lowest.txt
	build/bounds/bin/python -m pip install --quiet --constraint build/bounds/lowest.txt --editable . \
		"pytest>=8.3" "hypothesis>=6.100"
	OMP_NUM_THREADS=1 build/bounds/bin/python -m pytest -q -m "not slow" $(BOUNDS)

clean:
	rm -rf $(VENV) build dist

$(VENV)/demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs]'
	touch $@
