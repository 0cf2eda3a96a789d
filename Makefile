# `make` alone prints what there is.
PYTHON ?= python3.12
BIN := .venv/bin
CONFIG ?= configs/example.yaml
TAG ?= dev
PART ?= resume-xgboost
COUNT ?= 100
SEED ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup run test lint faults others cluster cuda gpu bench show scoreboard render lock images sbom clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: .venv/ready  ## make .venv with the locked versions

.venv/ready: images/requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement images/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check --quiet
	touch $@

run: setup  ## train, judge and deploy on a table that the project makes (or CONFIG=configs/my.yaml)
	@$(BIN)/surefoot run $(CONFIG)

test: setup  ## the tests that need nothing but this checkout, in minutes
	$(BIN)/python -m pytest -n 2

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

faults: setup  ## the tests that kill, damage and race
	$(BIN)/python -m pytest -m faults

others: setup  ## the tests against another S3 server, Argo 4 and Hera 6, which go, uv and pip fetch
	$(BIN)/python -m pytest -m others

cluster: setup  ## the tests on a Kubernetes with Argo (KUBECONFIG)
	$(BIN)/python -m pytest -m cluster

cuda: setup  ## take XGBoost's build for NVIDIA GPUs, of the same version (CatBoost's is one, LightGBM has none)
	$(BIN)/python -m pip uninstall --quiet --yes xgboost-cpu && $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r images/gpu.lock

gpu: cuda  ## the tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

bench: setup  ## measure, as ratios
	$(BIN)/python -m pytest -m bench --override-ini faulthandler_timeout=0

show: setup  ## print the figures: seconds (median of 3), lines, sizes, coverage
	$(BIN)/python -m tests.show

scoreboard: setup  ## kill and damage by the hundred (PART=resume-xgboost COUNT=100 SEED=2), and print the table
	$(BIN)/python -m tests.scoreboard $(PART) $(COUNT) $(SEED)
	$(BIN)/python -m tests.scoreboard table

render: setup  ## write what is generated: configs/base.yaml and the chart's workflow
	$(BIN)/python -m workflows.options > configs/base.yaml
	$(BIN)/python -m workflows.argo --write

lock: setup  ## resolve all versions anew, with hashes and without any index address
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.12 --generate-hashes --upgrade \
	  --no-emit-index-url --no-header --annotation-style line --output-file images/requirements.lock --quiet
	sed -n 's/^xgboost-cpu==\([^ ]*\).*/xgboost==\1/p' images/requirements.lock | $(BIN)/uv pip compile - --no-deps --universal \
	  --python-version 3.12 --generate-hashes --no-emit-index-url --no-header --no-annotate --output-file images/gpu.lock --quiet

images: setup  ## build the stages' images with Docker, as surefoot/<stage>:$(TAG) (images/build --gpu, --platform: other ones)
	images/build $(TAG)

sbom: setup  ## what libraries each image holds, as CycloneDX JSON in sbom/
	images/sbom

clean:  ## forget the environment and the local store
	rm -rf .venv store
