# Two commands do everything on a fresh machine: `make demo` and `make test`. Both may be run again at any time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: all demo test lint docs system clean

all: $(VENV)/installed system

# The environment is made anew only when the project's requirements change.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[test,lint]'
	touch $@

system:
	@sh tools/system-packages.sh

demo: all
	$(BIN)/tvm-shufflenet tune --target arm64
	$(BIN)/tvm-shufflenet compile --target arm64 -o demo/shufflenet
	$(BIN)/tvm-shufflenet run demo/shufflenet
	$(BIN)/tvm-shufflenet bench demo/shufflenet

# One process more than the two cores that a small machine has: tests wait for devices and for what they have started.
test: all
	-@sh tools/system-packages.sh tests
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

clean:
	rm -rf $(VENV) build dist demo *.egg-info
