# make demo   environment, install, train on generated photographs, render, report
# make test   the test suite
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.setup

.PHONY: setup demo test test-slow lint clean
setup: $(SETUP)
demo: $(SETUP)
	$(BIN)/python examples/demo.py demo
test: $(SETUP)
	$(BIN)/python -m pytest -q -m "not slow"
test-slow: $(SETUP)
	$(BIN)/python -m pytest -q -m slow
lint: $(SETUP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

# The C++ is built into .venv by the install; it is built again when a source file is newer than the last set-up.
SOURCES := CMakeLists.txt pyproject.toml constraints.txt $(shell find src -name '*.cpp' -o -name '*.h')
$(SETUP): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q --constraint constraints.txt torch
	$(BIN)/pip install -q "scikit-build-core>=0.10"
	$(BIN)/pip install -q --constraint constraints.txt --no-build-isolation --config-settings=cmake.define.RADFIELD_ISA=native -e '.[test,dev]'
	touch $(SETUP)
clean:
	rm -rf .venv build demo
