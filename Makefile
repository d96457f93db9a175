# The commands of the README need Python 3.11 or newer, pip and this file; nothing else.
#   make quickstart [SEED=1]   train a small model on generated Sudokus and look at it think
#                              (CPU_DEVICES=N: devices that the CPU is split into)
#   make test                  the test suite
#   make test-torch            the tests that need PyTorch as well
#   make cluster-test         gs://, two processes, W&B and SLURM, disturbed on purpose; a table
#   make lint                  ruff and basedpyright; make types: basedpyright alone
#   make aot AOT='--config=FILE --target=v5e:2x4'   what a TPU pod or GPUs would need for it
# Everything is installed into .venv (aot: .venv-aot, test-torch: .venv-torch); these folders can
# be deleted at any time.

PYTHON ?= $(firstword $(foreach p,python3 python3.12 python3.11 python3.13,\
  $(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
VENV ?= .venv
SEED ?= 0
WORKERS ?= 2
STARTED := $(shell date +%s)

# Only the modules that are really imported get compiled, once (empty: do write bytecode).
export PYTHONDONTWRITEBYTECODE :=

# $(call install,FILE): the packages of FILE, quietly; pip's words only when it fails.
install = { $(VENV)/bin/python -m pip install --disable-pip-version-check --no-compile --no-deps \
    --only-binary :all: --no-binary promise -r $(1) > $(VENV)/pip.log 2>&1 && rm $(VENV)/pip.log; } \
  || { tail -n 20 $(VENV)/pip.log; echo 'Installing failed; all of it: $(VENV)/pip.log'; exit 1; } >&2
# The checkout itself, so that hrm-jax and data_builders work from any folder.
install_this = { $(VENV)/bin/python -m pip install --disable-pip-version-check --no-deps -e . \
    > $(VENV)/pip.log 2>&1 && rm $(VENV)/pip.log; } \
  || { tail -n 20 $(VENV)/pip.log; echo 'Installing failed; all of it: $(VENV)/pip.log'; exit 1; } >&2

.PHONY: quickstart test cluster-test torch test-torch aot lint types format clean

quickstart: $(VENV)/installed
	@$(VENV)/bin/python -m experiments.quickstart --seed=$(SEED) --started=$(STARTED) \
	  $(if $(CPU_DEVICES),--cpu-devices=$(CPU_DEVICES))

test: $(VENV)/installed-dev
	@$(VENV)/bin/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  $(TESTS)

cluster-test: $(VENV)/installed-cluster
	@$(VENV)/bin/python -m experiments.cluster_test $(CLUSTER)

# PyTorch is large, and nothing else needs it: an environment of its own (2.0 GB,
# 0.7 GB of it PyTorch).
torch:
	@$(MAKE) -s --no-print-directory VENV=.venv-torch .venv-torch/installed-torch

# With CI_STRICT a test that does not find PyTorch fails instead of being skipped.
test-torch: torch
	@CI_STRICT=1 CI_INSTALLED=torch .venv-torch/bin/python -m pytest -q -m torch \
	  $(shell grep -l 'mark\.torch' tests/*_test.py)

# XLA's compilers for TPUs and NVIDIA GPUs are large: an environment of their own.
aot:
	@$(MAKE) --no-print-directory VENV=.venv-aot .venv-aot/installed-aot
	@.venv-aot/bin/python -m experiments.aot $(AOT)

check_types = $(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python

lint: $(VENV)/installed-dev
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(check_types)

types: $(VENV)/installed-dev
	@$(check_types)

format: $(VENV)/installed-dev
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .venv-aot .venv-torch build dist *.egg-info .pytest_cache .ruff_cache

# A Python without the venv module's own pip (Debian splits it off) lends the venv its pip.
$(VENV)/bin/python:
	@test -n '$(PYTHON)' || { echo 'hrm_jax needs Python 3.11 or newer, and none of python3,' \
	  'python3.11, python3.12, python3.13 is one. Name yours: make PYTHON=/path/to/python' >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV) 2>/dev/null \
	  || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
	       && $(PYTHON) -m pip --python $(VENV)/bin/python install -qq pip; }

$(VENV)/installed: requirements.txt | $(VENV)/bin/python
	@echo "Installing the packages of $< into $(VENV); this may take a minute ..."
	@$(call install,$<)
	@$(call install_this)
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	@$(call install,$<)
	@touch $@

$(VENV)/installed-cluster: $(VENV)/installed-dev
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check gcsfs wandb
	@touch $@

$(VENV)/installed-torch: requirements-torch.txt $(VENV)/installed-dev
	@echo "Installing PyTorch into $(VENV); this may take minutes ..."
	@( $(call install,$<) ) || { echo 'Is there a CPU build of PyTorch for this Python where pip' \
	  'looks? See requirements-torch.txt.' >&2; exit 1; }
	@touch $@

$(VENV)/installed-aot: requirements-aot.txt $(VENV)/installed
	@echo "Installing XLA's compilers for TPUs and GPUs into $(VENV); this may take minutes ..."
	@$(call install,$<)
	@touch $@
