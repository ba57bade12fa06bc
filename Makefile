# make app     the dashboard, installed on first use
# make test    everything a change has to pass: style, types, layers, tests, notebooks
# make check   the same, in whatever environment PYTHON names, installing nothing
# make gpu     the tests (also under compute-sanitizer, where it is) and benchmarks that need a CUDA device
# make bench   the benchmarks: ratios measured side by side
# make clean   remove what make made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

# Two workers on two cores: torch's own threads would fight over them.
export OMP_NUM_THREADS ?= 1
# Nothing here may ask a model hub for anything.
export HF_HUB_OFFLINE ?= 1

.PHONY: app test check style types layers unit notebooks bench gpu clean

app: $(VENV)/installed
	$(BIN)/strobe app

test: $(VENV)/installed-dev
	$(MAKE) check PYTHON=$(BIN)/python

check: style types layers unit notebooks

style:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m pyright --pythonpath "$$($(PYTHON) -c 'import sys; print(sys.executable)')"

layers:
	$(PYTHON) -c 'import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())'

unit:
	$(PYTHON) -m pytest -n $(WORKERS) -m "not gpu"

# A notebook is a script: the quickest way to know that every cell runs. Figures are drawn into nothing.
notebooks:
	@set -e; for notebook in notebooks/*.py; do \
		[ -e "$$notebook" ] || continue; \
		echo "$$notebook"; \
		PLOTLY_RENDERER=json $(PYTHON) -W error::DeprecationWarning:__main__ "$$notebook" > /dev/null; \
	done

bench: $(VENV)/installed-dev
	$(BIN)/python tests/benchmarks/run.py --write

gpu:
	$(PYTHON) -m pytest -p no:xdist -m gpu
	PYTHON="$(PYTHON)" sh tests/kernels/gpu/sanitize.sh
	@if $(PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
		$(PYTHON) tests/benchmarks/gpu.py --write --commit "$$(git rev-parse --short HEAD)"; \
	else echo "NOTICE: no CUDA device here, so the table was not measured."; fi

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and by its exact version: a range would take the newest build instead of the one tested.
$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install -e . -c constraints.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install -e '.[dev]' -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
