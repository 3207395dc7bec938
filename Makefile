# Two commands do all the set-up: `make serve` and `make test`. Each has its own environment, so that serving
# stays small and never sees torch, and testing never changes what serves.
PYTHON ?= python3
SERVE  := .venv
DEV    := .venv-dev
GPU    := .venv-gpu
EXTRA  := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP    := -m pip --disable-pip-version-check install --quiet

.PHONY: serve install dev test test-gpu bench-gpu check format clean

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
	$(DEV)/bin/python -m pytest --ignore tests/ray
	$(DEV)/bin/python -m pytest tests/ray  # in a process of its own, as it starts clusters

$(GPU)/.installed: pyproject.toml
	@echo "installing the tests' needs with CUDA and TensorRT into $(GPU) ..."
	@$(PYTHON) -m venv $(GPU)
	@$(GPU)/bin/python $(PIP) -e '.[test,gpu,tensorrt]'
	@# onnxruntime and onnxruntime-gpu are one package in two builds, and the tests brought both: the second stays
	@$(GPU)/bin/python -m pip --quiet uninstall --yes onnxruntime
	@$(GPU)/bin/python $(PIP) --force-reinstall --no-deps 'onnxruntime-gpu>=1.31,<2'
	@touch $@

test-gpu: $(GPU)/.installed  ## Run what needs an NVIDIA GPU, TensorRT among it
	$(GPU)/bin/python -m pytest -m gpu tests/gpu

bench-gpu: $(GPU)/.installed  ## Measure kernels and networks on this GPU; ROWS='--only kernel' or '--match resnet18 360x480'
	$(GPU)/bin/python -m benchmarks.model.gpu $(ROWS)

bench: dev  ## Measure engines, the server beside its peers, and codecs; half an hour on a quiet machine
	$(DEV)/bin/python $(PIP) -e '.[bench]'
	$(DEV)/bin/python -m benchmarks.model.runtimes
	$(DEV)/bin/python -m benchmarks.server.compare_servers closed
	$(DEV)/bin/python -m benchmarks.server.compare_servers open
	$(DEV)/bin/python -m benchmarks.server.compare_servers closed --shipped --seconds 5
	$(DEV)/bin/python -m benchmarks.server.compare_servers open --shipped --seconds 8 --repeats 1
	$(DEV)/bin/python -m benchmarks.server.http_overhead
	$(DEV)/bin/python -m benchmarks.server.startup_and_memory
	$(DEV)/bin/python -m benchmarks.model.codecs
	$(DEV)/bin/python -m benchmarks.plots

check: dev  ## Lint, format, types, and which room may import which
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports

format: dev  ## Format, and fix what ruff can fix
	$(DEV)/bin/ruff check --fix-only --quiet .
	$(DEV)/bin/ruff format .

clean:  ## Remove the environments and caches
	rm -rf $(SERVE) $(DEV) $(GPU) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
