# What a newcomer needs, each target making its own environment first. PYTHON chooses the interpreter: make demo PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py CMakeLists.txt $(shell find src csrc -type f -not -name '*.so' -not -name '*.pyc' \
	-not -name '_build_info.json' -not -path '*/__pycache__*' -not -path '*.egg-info*')
OUTPUT := demo-output

.DEFAULT_GOAL := help
.PHONY: help test lint format demo docs bench bench-quick bench-check clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

# An environment with the extra of that name; made again when a source changed. Without a compiler it fails and says so.
.DELETE_ON_ERROR:
$(VENV)/.has-%: $(SOURCES)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	FASTCONV_REQUIRE_CPP=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check '.[$*]'
	@touch $@

# Libraries to compare with, beyond what the extra brings: make test ORACLES="torch onnx". Tests that need one skip
# without it, and fail without it where it was asked for.
ORACLES ?=

test: $(VENV)/.has-test  ## install, then every test; a backend that cannot be had is a failure
	@test -z "$(ORACLES)" || $(BIN)/python -m pip install --quiet --disable-pip-version-check $(ORACLES)
	FASTCONV_REQUIRE_BACKENDS=1 FASTCONV_REQUIRE_ORACLES=$(if $(ORACLES),1,0) $(BIN)/python -m pytest

lint: $(VENV)/.has-test  ## style and types: ruff, mypy (strict), clang-format
	$(BIN)/python -m pip install --quiet --disable-pip-version-check ruff mypy clang-format
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	find csrc -name '*.cpp' -o -name '*.hpp' | xargs $(BIN)/clang-format --dry-run --Werror

format:  ## what lint asks for, done: ruff and clang-format of the environment at hand
	ruff check --fix && ruff format
	find csrc -name '*.cpp' -o -name '*.hpp' | xargs clang-format -i

demo: $(VENV)/.has-demo  ## install, run the demo on photographs, then train on real digits (pictures in demo-output/)
	$(BIN)/fastconv demo --output $(OUTPUT)
	@echo "Last, a lesson: train a network on 1,437 handwritten digits"
	@$(BIN)/python examples/digits.py --output $(OUTPUT)

docs: $(VENV)/.has-docs  ## the documentation site, into build/docs/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs/html
	@echo "open build/docs/html/index.html"

bench: $(VENV)/.has-bench  ## every layer of every network, every backend, forward and backward; a report in .benchmarks
	@mkdir -p .benchmarks
	$(BIN)/python -m pytest benchmarks --ignore=benchmarks/bench_regression.py \
		--benchmark-json=.benchmarks/bench.json --report=.benchmarks/report.html

bench-quick: $(VENV)/.has-bench  ## the same in short, under two minutes
	$(BIN)/python -m pytest benchmarks --ignore=benchmarks/bench_regression.py --quick --report=.benchmarks/report.html

bench-check: $(VENV)/.has-bench  ## nothing became slower than the saved baseline, by more than noise
	$(BIN)/python -m pytest benchmarks/bench_regression.py

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist $(OUTPUT) .benchmarks src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name '*.so' -delete
