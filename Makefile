# Everything needs only Python >= 3.11 and make; the control plane of the lab comes from a cache, a download or Go.
PYTHON ?= python3
export UV_PYTHON_DOWNLOADS := never
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN := .venv/bin
export PYTHONPATH := operator:tests

.PHONY: help setup demo lab test test-fast lint crds bench bench-migrations chaos-migrations wheel clean

help:
	@echo "make demo [FAULT=feature | KILL=1 | OUTAGE=1]   the whole programme on real parts, proved at its end"
	@echo "make lab         leave the parts running and print how to reach them"
	@echo "make test        everything; make test-fast: what needs no lab; make lint"
	@echo "make bench       figures as JSON and a table"
	@echo "make bench-migrations, make chaos-migrations [FAULTS=500 SEED=n]   the database half under load, and under faults"
	@echo "make wheel       the project as a Python wheel in build/"
	@echo "make crds        write crds/ from the models"

.uv/bin/uv:
	@$(PYTHON) -m venv .uv && .uv/bin/pip install --quiet uv

.venv/.synced: pyproject.toml uv.lock $(filter .uv/bin/uv,$(UV))
	@$(UV) sync --frozen --quiet --python $(PYTHON)
	@touch $@

setup: .venv/.synced

demo: setup
	@$(BIN)/python -m lab.demo $(if $(FAULT),--fault $(FAULT)) $(if $(KILL),--kill) $(if $(OUTAGE),--outage) $(if $(SEED),--seed $(SEED)) $(if $(TRANSCRIPT),--transcript $(TRANSCRIPT))

lab: setup
	@$(BIN)/python -m lab

lint: setup
	@$(BIN)/ruff check operator tests
	@$(BIN)/ruff format --check --quiet operator tests
	@$(BIN)/mypy
	@$(BIN)/squawk --config tests/migrations/squawk.toml operator/session_rollout/migrations/bundles/*/*/*.up.sql

test: lint
	@$(BIN)/python -m pytest tests/core/test_model.py
	@$(BIN)/coverage run -m pytest --ignore=tests/core/test_model.py
	@$(BIN)/coverage report

test-fast: setup
	@$(BIN)/python -m pytest -m "not lab"

crds: setup
	@$(BIN)/python -m session_rollout.api.crds crds

bench: setup
	@$(BIN)/python -m bench $(BENCH)

bench-migrations: setup
	@$(BIN)/python -m bench.migrations $(BENCH)

chaos-migrations: setup
	@$(BIN)/python -m chaos $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED))

wheel: setup
	@$(UV) build --quiet --wheel --out-dir build

clean:
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build
