# The two commands of the README: `make run` and `make test`. `make help` lists the others.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out
LESSON ?= 01

BIN := $(VENV)/bin
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt

# uv does not read pip's settings; a registry mirror that is configured for pip serves uv as well.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

# One heap of the GNU C library instead of one for each thread: a lesson takes 0.1 GB less.
export MALLOC_ARENA_MAX ?= 1

# Inherited, this setting would have every kernel compile torch anew, which doubles its start.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run lab test course test-gpu lint types notebooks badges book nbgrader colab reference constraints wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.lab ## make the environment, run lesson 01 on what ships, show its scores
	$(BIN)/python notebooks/run.py $(LESSON) --out $(OUT)

lab: export OMP_WAIT_POLICY = PASSIVE
lab: $(VENV)/.lab ## open JupyterLab on the lessons
	$(BIN)/jupyter lab notebooks

test: export OMP_NUM_THREADS = 1
test: $(VENV)/.test lint types ## everything that needs no GPU: style, types, tests, lessons, browser
	$(BIN)/python notebooks/build.py --check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/hostile tests/unit tests/parity
	$(BIN)/python -m pytest -n 2 --dist loadgroup tests/notebooks tests/browser

test-gpu: $(VENV)/.test ## only the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

course: export OMP_NUM_THREADS = 1
course: $(VENV)/.test ## run every lesson whole, in JupyterLab and by nbval; write its minutes
	$(BIN)/python notebooks/course.py --out $(OUT)/course --write
	$(BIN)/python -m pytest -m course tests/browser tests/notebooks

lint: $(VENV)/.test ## style of the code and of the notebooks, and arrows between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.test ## annotations of the package
	$(BIN)/mypy

notebooks: $(VENV)/.lab ## build the lessons and their solutions from notebooks/source
	$(BIN)/python notebooks/build.py

badges: $(VENV)/.lab ## set the address of the repository: make badges REPOSITORY=…
	$(BIN)/python notebooks/build.py --repository '$(REPOSITORY)'

book: $(VENV)/.lab ## run every lesson, and make a site of them that needs no network
	$(BIN)/python notebooks/book.py --out $(OUT)/book

nbgrader: $(VENV)/.lab ## make a course of nbgrader with the lesson (LESSON=04) as an assignment
	$(BIN)/python notebooks/to_nbgrader.py $(OUT)/nbgrader --lessons $(LESSON)
	cd $(OUT)/nbgrader && for name in $$(ls source | grep '^$(LESSON)_'); do \
	  $(abspath $(BIN))/uv tool run nbgrader generate_assignment --force $$name; done

colab: wheel ## say whether installing on Colab would change what Colab has; needs a network
	PATH="$(BIN):$$PATH" $(BIN)/python tests/colab/dry_run.py dist/*.whl

reference: $(VENV)/.test ## store again the outputs that the lessons' checked cells must show
	$(BIN)/python tests/notebooks/nbval_reference.py

constraints: $(VENV)/bin/uv ## choose again the exact versions that `make run` installs
	$(BIN)/uv pip compile --quiet --universal --upgrade --all-extras --python-version 3.11 \
	  --no-annotate --no-header --output-file constraints.txt pyproject.toml

wheel: $(VENV)/.test ## build the wheel, with data and lessons inside
	$(BIN)/python -m build --wheel --no-isolation

clean: ## remove what the other targets made
	rm -rf $(VENV) $(OUT) build dist .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("geopeft_nb needs Python \
	3.11 or newer, and this is " + sys.version.split()[0] + ": name one, make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# The stamps keep a second `make run` from installing again.
$(VENV)/.lab: pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(INSTALL) --editable '.[lab]'
	@touch $@

$(VENV)/.test: $(VENV)/.lab
	$(INSTALL) --editable '.[lab,test,dev]'
	@touch $@
