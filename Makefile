# make setup      .venv with the package installed editable, its C++ compiled for this machine
# make demo       train on generated photographs, render, report
# make test       the test suite            make test-slow   what takes minutes: wheel, every instruction set, arm64
# make lint       ruff                      make bench       the training step, timed
# It needs Python >= 3.10, a C++20 compiler (GCC 12 or Clang 14) and make; pip brings the rest, CMake and Ninja too.
PYTHON ?= python3
CXX_FOUND := $(firstword $(foreach c,$(if $(filter-out undefined default,$(origin CXX)),$(CXX)) c++ g++ clang++,\
  $(shell $(c) -std=c++20 -fsyntax-only -x c++ /dev/null 2>/dev/null && echo "$(c)")))
BIN := .venv/bin
SETUP := .venv/.setup
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install -q

.PHONY: setup demo test test-slow lint bench clean FORCE
setup: $(SETUP)
demo: $(SETUP)
	$(BIN)/python examples/demo.py --output demo
test: $(SETUP)
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist worksteal
test-slow: $(SETUP)
	$(BIN)/python -m pytest -q -m slow
lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
bench: $(SETUP)
	$(BIN)/python benchmarks/train_step.py
clean:
	rm -rf .venv build demo

# Set up again when a source of the library is newer than the last set-up; CMake then compiles what changed. Also when
# the list of Python files is another one, for an editable install knows the files there were.
# torch comes first and alone, and only where there is none, so that no later step has a reason to replace it.
SOURCES := CMakeLists.txt pyproject.toml constraints.txt $(shell find src -name '*.cpp' -o -name '*.h')
LISTED := find src -name '*.py' | sort
$(SETUP): $(SOURCES) $(if $(shell $(LISTED) | cmp -s - .venv/.files || echo changed),FORCE)
	@test -n "$(CXX_FOUND)" || { echo "radfield: no C++20 compiler found: install GCC 12 or Clang 14, or newer (set CXX for another name)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c "import torch" 2>/dev/null || $(PIP) --constraint constraints.txt torch
	$(PIP) "scikit-build-core>=0.11" "cmake>=3.20" ninja
	$(PIP) --no-build-isolation --config-settings=cmake.define.RADFIELD_ISA=native --editable ".[viewer,test,dev]"
	@$(LISTED) > .venv/.files
	@touch $(SETUP)
FORCE:
