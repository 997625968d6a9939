# A fresh machine needs nothing done by hand before any of these.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: app test check bench samples clean

app: $(VENV)/.installed
	$(BIN)/lsviz dash

test: $(VENV)/.installed-test
	@sh tests/browser/install_chromium.sh
	$(BIN)/python -m pytest -q

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.counting

samples: $(VENV)/.installed
	rm -rf sample_runs/2*/
	$(BIN)/lsviz run --task sigmoid-mlp --precision fp32 --policy none $(SAMPLE)
	$(BIN)/lsviz run --task sigmoid-mlp --policy none $(SAMPLE)
	$(BIN)/lsviz run --task sigmoid-mlp --policy constant:1024 $(SAMPLE)
	$(BIN)/lsviz run --task sigmoid-mlp --policy gradscaler $(SAMPLE)
SAMPLE := --seed 0 --record-every 40 --reference-every 40 --out sample_runs

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created requirements.txt pyproject.toml
	@echo "Installing torch, streamlit and the rest into $(VENV): about a minute."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
