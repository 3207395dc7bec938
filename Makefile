# Two commands do all the set-up: `make serve` and `make test`. Each has its own environment, so that serving
# stays small and never sees torch, and testing never changes what serves.
PYTHON ?= python3
SERVE  := .venv
DEV    := .venv-dev
EXTRA  := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP    := -m pip --disable-pip-version-check install --quiet

.PHONY: serve install dev test test-gpu check format clean

serve: install  ## Install what serving needs and serve weights/alignseg-lite on this machine
	$(SERVE)/bin/alignseg serve

install: $(SERVE)/.installed-$(EXTRA)

$(SERVE)/.installed-$(EXTRA): pyproject.toml
	@echo "installing the $(EXTRA) server into $(SERVE) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; try make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(SERVE)
	@$(SERVE)/bin/python $(PIP) -e '.[$(EXTRA),client]'
	@touch $@

dev: $(DEV)/.installed

$(DEV)/.installed: pyproject.toml
	@echo "installing the tests' needs, PyTorch among them, into $(DEV) ..."
	@$(PYTHON) -m venv $(DEV)
	@$(DEV)/bin/python $(PIP) -e '.[test]'
	@touch $@

test: dev  ## Run the test suite; what needs a GPU, a browser or the team's data skips and says so
	$(DEV)/bin/python -m pytest

test-gpu: dev  ## Run what needs an NVIDIA GPU, TensorRT among it
	$(DEV)/bin/python $(PIP) -e '.[test,tensorrt]'
	$(DEV)/bin/python -m pytest -m gpu tests/gpu

check: dev  ## Lint, format, types, and which room may import which
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports

format: dev  ## Format, and fix what ruff can fix
	$(DEV)/bin/ruff check --fix-only --quiet .
	$(DEV)/bin/ruff format .

clean:  ## Remove the environments and caches
	rm -rf $(SERVE) $(DEV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
