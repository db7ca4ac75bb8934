# The four targets that a newcomer needs: run, test, bench, docs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --only-binary=pythia8mc,fastjet
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Small arrays on two cores: more threads only get in each other's way.
export OMP_NUM_THREADS ?= 1
CONFIG ?= quickstart

.PHONY: run test lint bench docs clean

# What `make run` needs: the package with the tools that simulate its RTL, and the clustering of the page.
$(VENV)/.run: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing l1ad into $(VENV) (a minute or two)"
	@$(PIP) -e '.[rtl,search]'
	@touch $@

$(VENV)/.test: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing l1ad, its extras and its test tools into $(VENV)"
	@$(PIP) -e '.[all,test,docs]'
	@touch $@ $(VENV)/.run $(VENV)/.docs

$(VENV)/.docs: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[docs]'
	@touch $@

run: $(VENV)/.run
	$(BIN)/l1ad run $(CONFIG)

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

bench: $(VENV)/.test
	$(BIN)/python bench/run_all.py

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache
