# A fresh machine needs nothing done by hand before any of these.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RAY_TESTS := tests/jobs/test_ray.py tests/jobs/test_raydriver.py

LOWEST := .venv.lowest

.PHONY: app test test-ray test-lowest soak check bench samples clean

app: $(VENV)/.installed
	$(BIN)/lsviz dash $(if $(PORT),--port $(PORT))

test: $(VENV)/.installed-test
	@sh tests/browser/install_chromium.sh
	$(BIN)/python -m pytest -q -n 2 --dist worksteal $(foreach file,$(RAY_TESTS),--ignore $(file))
	$(BIN)/python -m pytest -q -m "not slow" $(RAY_TESTS)

# All of Ray's; `make test` leaves out the slow ones. By themselves, since Ray reads whether to ask for a token as it is imported, and Lightning imports it.
test-ray: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q $(RAY_TESTS)

# With the lowest version of every dependency that pyproject.toml allows (torch's is a CUDA build: 8 GB of disk,
# about a quarter of an hour). All tests but those of browsers, faults and Ray.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -q -n 2 --dist worksteal --ignore tests/jobs/test_ray.py --ignore tests/faults --ignore tests/browser

# The long part of the faults and loads that tests/faults holds against it: about 40 minutes.
soak: $(VENV)/.installed-test
	@sh tests/browser/install_chromium.sh
	$(BIN)/python -m pytest -q -s -m soak tests/faults

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.counting
	$(BIN)/python -m benchmarks.recorder
	$(BIN)/python -m benchmarks.store
	$(BIN)/python -m benchmarks.pages
	$(BIN)/python -m benchmarks.sessions

# The runs behind the lessons, each recorded 25 times (those that the pages open on come last), and the table beside the paper (about 35 minutes on two cores).
samples: $(VENV)/.installed
	rm -rf sample_runs/2*/
	$(SAMPLE) 16 --task digits-mlp --policy none
	$(SAMPLE) 16 --task digits-mlp --policy constant:128
	$(SAMPLE) 16 --task digits-cnn --policy none
	$(SAMPLE) 16 --task digits-cnn --policy constant:128
	$(SAMPLE) 8 --task digits-cnn --policy gradscaler --steps 200 --inject 100:conv1:huge
	$(SAMPLE) 16 --task shapes-ssd --policy none
	$(SAMPLE) 16 --task shapes-ssd --policy constant:256
	$(SAMPLE) 16 --task shapes-ssd --policy gradscaler
	$(SAMPLE) 16 --task shapes-ssd --loss-weight 2^-14 --policy none
	$(SAMPLE) 16 --task shapes-ssd --loss-weight 2^-14 --policy constant:2^18
	$(SAMPLE) 24 --task char-gpt --policy none
	$(SAMPLE) 24 --task char-gpt --policy constant:128
	$(SAMPLE) 24 --task char-lstm --policy none
	$(SAMPLE) 24 --task char-lstm --policy constant:128
	$(SAMPLE) 32 --task dcgan --policy none
	$(SAMPLE) 32 --task dcgan --policy constant:128
	$(SAMPLE) 20 --task image-fit --policy none
	$(SAMPLE) 20 --task image-fit --policy constant:256
	$(SAMPLE) 20 --task image-fit --loss-weight 2^-4 --policy none
	$(SAMPLE) 20 --task image-fit --loss-weight 2^-4 --policy constant:2^12
	$(SAMPLE) 20 --task image-fit --loss-weight 2^-8 --precision fp32
	$(SAMPLE) 20 --task image-fit --loss-weight 2^-8 --policy none
	$(SAMPLE) 20 --task image-fit --loss-weight 2^-8 --policy constant:2^14
	$(SAMPLE) 20 --task image-fit --loss-weight 2^-8 --policy gradscaler
	$(SAMPLE) 40 --task sigmoid-mlp --precision fp32
	$(SAMPLE) 40 --task sigmoid-mlp --policy none
	$(SAMPLE) 40 --task sigmoid-mlp --policy constant:1024
	$(SAMPLE) 40 --task sigmoid-mlp --policy gradscaler
	$(BIN)/lsviz reproduce --out runs/reproduce
	cp runs/reproduce/reproduce.json sample_runs/
	$(BIN)/lsviz lab --out runs/lab
	cp runs/lab/lab.json sample_runs/
SAMPLE := sh -c '$(BIN)/lsviz run --seed 0 --out sample_runs --record-every $$0 --reference-every $$0 "$$@"'

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
	@# Beside the rest: built for CUDA, it can't be imported next to a CPU torch without a little help.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/torchvision torchvision==0.28.0
	touch $@

$(LOWEST)/.installed: pyproject.toml tests/lowest.py
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python tests/lowest.py $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints.txt -r $(LOWEST)/tools.txt -e '.[export,lightning,tensorboard,transformers,wandb]'
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps torchvision==0.24.0
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) .pytest_cache .mypy_cache .ruff_cache .hypothesis
