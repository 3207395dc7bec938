# `make serve` and `make test` set up all they need, each in its own environment: serving stays small and never imports
# torch, and testing does not change what serves.
PYTHON ?= python3
SERVE  := .venv
DEV    := .venv-dev
EXPORT := .venv-export
GPU    := .venv-gpu
TOOLS  := .venv-tools
EXTRA  := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP    := -m pip --disable-pip-version-check install --quiet
# Exactly the files of the lock: each has the hash written there, and none is built from source.
HASHED := $(PIP) --require-hashes --only-binary=:all: --requirement
LOCK   := requirements/serve-$(EXTRA).lock
# This project itself; the lock has the setuptools that builds it.
SELF   := $(PIP) --no-deps --no-build-isolation -e .

.PHONY: help serve install export-env dev test test-gpu bench bench-gpu fuzz check format lock audit sbom clean

serve: install  ## Install what serving needs; serve weights/alignseg-lite on http://127.0.0.1:8000
	$(SERVE)/bin/alignseg serve

help:  ## List these commands
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

install: $(SERVE)/.installed-$(EXTRA)  ## Install what serving needs into .venv

$(SERVE)/.installed-$(EXTRA): pyproject.toml $(LOCK)
	@echo "installing the $(EXTRA) server into $(SERVE) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; try make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(SERVE)
ifeq ($(shell uname -sm),Linux x86_64)
	@$(SERVE)/bin/python $(HASHED) $(LOCK)
	@$(SERVE)/bin/python $(SELF)
else
	@# the lock is made for Linux x86_64; elsewhere its versions are used, without hashes
	@sed -nE 's/^([a-z0-9.-]+==[^ ;]+).*/\1/p' $(LOCK) >$(SERVE)/versions.txt
	@$(SERVE)/bin/python $(PIP) --constraint $(SERVE)/versions.txt -e '.[$(EXTRA),client]'
endif
	@touch $@

# On Linux, pip installs PyTorch with CUDA, several gigabytes, unless it is given PyTorch's CPU index, which is enough:
# make export-env PIP_EXTRA_INDEX_URL=...
export-env: $(EXPORT)/.installed  ## Install what `alignseg export` needs, with PyTorch, into .venv-export

$(EXPORT)/.installed: pyproject.toml requirements/dev.lock
	@echo "installing the export environment with PyTorch into $(EXPORT) ..."
	@$(PYTHON) -m venv $(EXPORT)
	@$(EXPORT)/bin/python $(PIP) --constraint requirements/dev.lock -e '.[export]'
	@touch $@

dev: $(DEV)/.installed  ## Install the development environment, with PyTorch, into .venv-dev

$(DEV)/.installed: pyproject.toml requirements/dev.lock
	@echo "installing the development environment with PyTorch into $(DEV) ..."
	@$(PYTHON) -m venv $(DEV)
	@$(DEV)/bin/python $(PIP) --constraint requirements/dev.lock -e '.[test]'
	@touch $@

test: dev  ## Run the test suite; tests that need a GPU, a browser or unshipped data skip and say so
	$(DEV)/bin/python -m pytest --ignore tests/ray
	$(DEV)/bin/python -m pytest tests/ray  # in its own process, because it starts clusters

$(GPU)/.installed: pyproject.toml requirements/dev.lock
	@echo "installing the development environment with CUDA and TensorRT into $(GPU) ..."
	@$(PYTHON) -m venv $(GPU)
	@$(GPU)/bin/python $(PIP) --constraint requirements/dev.lock --constraint requirements/tensorrt.lock -e '.[test,gpu,tensorrt]'
	@# onnxruntime and onnxruntime-gpu are one package in two builds, and both were installed: keep the second
	@$(GPU)/bin/python -m pip --quiet uninstall --yes onnxruntime
	@$(GPU)/bin/python $(PIP) --force-reinstall --no-deps 'onnxruntime-gpu>=1.31,<2'
	@touch $@

test-gpu: $(GPU)/.installed  ## Run the tests that need an NVIDIA GPU
	$(GPU)/bin/python -m pytest -m gpu tests/gpu

bench-gpu: $(GPU)/.installed  ## Measure kernels and networks on this GPU; ROWS='--only kernel' or ROWS='--match resnet18 360x480'
	$(GPU)/bin/python -m benchmarks.model.gpu $(ROWS)

bench: dev  ## Measure runtimes, the server beside its peers, and codecs; half an hour on a quiet machine
	$(DEV)/bin/python $(PIP) --constraint requirements/dev.lock -e '.[bench]'
	$(DEV)/bin/python -m benchmarks.model.runtimes
	$(DEV)/bin/python -m benchmarks.server.compare_servers closed
	$(DEV)/bin/python -m benchmarks.server.compare_servers open
	$(DEV)/bin/python -m benchmarks.server.compare_servers closed --shipped --seconds 5
	$(DEV)/bin/python -m benchmarks.server.compare_servers open --shipped --seconds 8 --repeats 1
	$(DEV)/bin/python -m benchmarks.server.http_overhead
	$(DEV)/bin/python -m benchmarks.server.startup_and_memory
	$(DEV)/bin/python -m benchmarks.model.codecs
	$(DEV)/bin/python -m benchmarks.plots

MINUTES ?= 3
fuzz: dev  ## Fuzz what reads clients' bytes, guided by coverage, for MINUTES=3 in all; a failing input ends it
	for target in image v2 multipart; do $(DEV)/bin/python -m tests.fuzz.run $$target -max_total_time=$$(( $(MINUTES) * 20 )) || exit 1; done

check: dev  ## Check lint, format, types and import contracts
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports

format: dev  ## Format, and fix what ruff can fix
	$(DEV)/bin/ruff check --fix-only --quiet .
	$(DEV)/bin/ruff format .

$(TOOLS)/.installed: requirements/tools.lock
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python $(HASHED) requirements/tools.lock
	@touch $@

lock: $(TOOLS)/.installed  ## Renew the lock files in requirements/ and list what changed; LOCKS='serve-cpu' for some of them
	@$(TOOLS)/bin/python requirements/lock.py $(LOCKS)

audit: $(TOOLS)/.installed  ## Compare the lock files with known vulnerabilities; exit status 3 (make: "Error 3") if it cannot be reached
	@$(TOOLS)/bin/python requirements/audit.py

sbom: $(TOOLS)/.installed  ## Write a CycloneDX bill of materials of each environment to sbom/; IMAGE=alignseg-serve:cpu for an image
	@$(TOOLS)/bin/python requirements/sbom.py $(if $(IMAGE),--image $(IMAGE))

clean:  ## Remove the environments and caches
	rm -rf $(SERVE) $(EXPORT) $(DEV) $(GPU) $(TOOLS) sbom .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
