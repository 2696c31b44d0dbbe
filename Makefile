# Everything needs only Python >= 3.11 and make; the control plane of the lab comes from a cache, a download or Go.
PYTHON ?= python3
export UV_PYTHON_DOWNLOADS := never
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN := .venv/bin
export PYTHONPATH := operator:tests:.
# Tests start hundreds of processes: each would compile all that it imports again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo cluster-demo ha-demo image docs lab transcripts test test-fast coverage test-model mutants test-messages lint crds chart bench evidence bench-migrations chaos-migrations faults fuzz-promql fuzz-yaml generated wheel krew clean

help:
	@echo "make demo [FAULT=feature | KILL=1 | OUTAGE=1]   the whole rollout on real parts, proved at its end"
	@echo "make demo FAULT=feature SIZE=0.01|0.05|0.15|0.5, make demo AA=1, make demo UNWIRED=1   users with a feature are compared with others"
	@echo "make cluster-demo the same in Pods of a real node: containerd, kubelet, helm; needs root"
	@echo "make ha-demo     two replicas, the leader killed ten times and frozen once"
	@echo "make image       the image, its size, layers, start time and SBOM"
	@echo "make docs        the documentation as a site in build/site"
	@echo "make lab         leave the parts running and print how to reach them"
	@echo "make transcripts what docs/recordings.md shows, recorded again"
	@echo "make test        everything; make test-fast: what needs no lab; make test-group-NAME: $(GROUPS)"
	@echo "make coverage    the same tests, and which lines of the operator they run"
	@echo "make test-messages   tests and demo with every message replaced by its reason"
	@echo "make generated [OBJECTS=50000] [EVENTS=12] [ON_SERVER=500] [SEED=n]   generated objects for decide, the plugin and the operator"
	@echo "make fuzz-yaml [SECONDS=600]   hostile YAML for the plugin"
	@echo "make test-model [RUNS=20000 SEED=n]   random lives; make mutants: whether they notice faults that are put in"
	@echo "make lint        ruff, mypy, squawk"
	@echo "make bench       figures as JSON and a table"
	@echo "make evidence [SCENARIO=detection SCALE=0.1]   simulations of the comparison with users without a feature"
	@echo "make bench-migrations, make chaos-migrations [FAULTS=500 SEED=n]   the database half under load, and under faults"
	@echo "make faults [SCENARIO=breach] [DO=kill]   every write of the operator with every fault, by one leader and by two"
	@echo "make fuzz-promql [SECONDS=600]   queries that nobody would write, for that long"
	@echo "make wheel       the project as a Python wheel in build/"
	@echo "make krew RELEASES=https://...   the plugin as an archive for this platform, and krew's manifest, in build/krew"
	@echo "make crds        write crds/ from the models; make chart: that, and the chart and manifests/ from theirs"

.uv/bin/uv:
	@$(PYTHON) -m venv .uv && .uv/bin/pip install --quiet uv

.venv/.synced: pyproject.toml uv.lock $(filter .uv/bin/uv,$(UV))
	@$(UV) sync --frozen --quiet --python $(PYTHON)
	@touch $@

setup: .venv/.synced

# With SIZE, AA or UNWIRED, users with a feature are compared with users without it.
demo: MODULE := lab.$(if $(SIZE)$(AA)$(UNWIRED),comparison_demo,demo)
demo: setup
	@$(BIN)/python -m $(MODULE) $(if $(FAULT),--fault $(FAULT)) $(if $(SIZE),--size $(SIZE)) $(if $(AA),--aa) $(if $(UNWIRED),--unwired) $(if $(KILL),--kill) $(if $(OUTAGE),--outage) $(if $(KEEP),--keep $(KEEP)) $(if $(PICTURES),--pictures $(PICTURES)) $(if $(SEED),--seed $(SEED))

cluster-demo: setup
	@$(BIN)/python -m lab.cluster_demo

ha-demo: setup
	@$(BIN)/python -m lab.ha_demo

image: setup
	@$(BIN)/python -m lab.images

docs: setup
	@$(BIN)/python docs/diagrams.py
	@$(BIN)/python docs/generate.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "the documentation is in build/site"

lab: setup
	@$(BIN)/python -m lab

transcripts: setup
	@$(BIN)/python -m lab.transcripts

lint: setup
	@$(BIN)/ruff check operator lab bench chaos tools tests docs
	@$(BIN)/ruff format --check --quiet operator lab bench chaos tools tests docs
	@$(BIN)/mypy
	@$(BIN)/vulture
	@$(BIN)/deptry operator >/dev/null 2>&1 || $(BIN)/deptry operator
	@$(BIN)/squawk --config tests/migrations/squawk.toml operator/session_rollout/migrations/bundles/*/*/*.up.sql

# The groups share nothing (see tests/conftest.py), so that they run side by side; each writes to a log of its own.
GROUPS := lab cli node database fast model
NICE_model := nice
NICE_fast := nice
RUN := python -m
# What the lab is made of is built once, before several groups ask for it at the same time.
PARTS := from lab import sources as s; s.node(s.control_plane()); s.prometheus(); s.helm()

test: lint test-groups

.PHONY: test-groups coverage $(GROUPS:%=test-group-%)
test-groups: setup
	@rm -rf build/test
	@$(BIN)/python -c "$(PARTS)"
	@echo "groups of tests: $(GROUPS); their logs are build/test/*/log"
	@$(MAKE) --no-print-directory --jobs=3 --keep-going --output-sync=target $(GROUPS:%=test-group-%)

$(GROUPS:%=test-group-%): test-group-%: setup
	@mkdir -p build/test/$*
	@COVERAGE_FILE=$(CURDIR)/build/test/$*/.coverage HYPOTHESIS_STORAGE_DIRECTORY=.hypothesis/$* $(NICE_$*) \
	$(BIN)/$(RUN) pytest --group=$* -o cache_dir=build/test/$*/cache > build/test/$*/log 2>&1 \
	&& echo "$*: $$(tail -n 1 build/test/$*/log)" || { cat build/test/$*/log; echo "$*: FAILED"; exit 1; }

# To measure the lines doubles the time of everything that computes.
coverage: export RUN := coverage run -m
coverage: test-groups
	@$(BIN)/coverage combine --quiet build/test/*
	@$(BIN)/coverage report

# RUNS random lives; CI runs fewer.
test-model: setup
	@MODEL_RUNS=$(or $(RUNS),20000) MODEL_SEED=$(or $(SEED),0) $(BIN)/python -m pytest -q -o timeout=0 --group=model

# Faults that are put into a copy of the operator: the model has to notice each of them.
mutants: setup
	@$(BIN)/python -m core.model.mutants $(if $(LIVES),--lives $(LIVES)) $(ONLY)

test-fast: setup
	@$(BIN)/python -m pytest -m "not lab"

# Nothing may depend on prose: every message is replaced by its reason, in each process that the lab starts.
test-messages: export LAB_MESSAGES := reasons
test-messages: setup
	@$(BIN)/python -m pytest -m "not lab"
	@$(BIN)/python -m pytest --group=cli
	@$(BIN)/python -m lab.reasons_only lab.demo

# Objects made from the schema of the CRD; see tests/api/strategies.py. Prints what was done.
generated: export GENERATED_OBJECTS := $(or $(OBJECTS),1000)
generated: export GENERATED_EVENTS := $(or $(EVENTS),12)
generated: export GENERATED_ON_SERVER := $(or $(ON_SERVER),100)
generated: export GENERATED_SEED := $(or $(SEED),0)
generated: setup
	@$(BIN)/python -m pytest -s -o timeout=0 tests/core/test_generated.py tests/cli/test_generated.py tests/integration/test_generated.py

fuzz-yaml: export FUZZ_YAML_SECONDS := $(or $(SECONDS),60)
fuzz-yaml: export GENERATED_SEED := $(or $(SEED),0)
fuzz-yaml: setup
	@$(BIN)/python -m pytest -s -o timeout=0 tests/cli/test_generated_yaml.py

crds: setup
	@$(BIN)/python -m tools.crds crds

chart: setup crds
	@$(BIN)/python -m tools.chart.build

bench: setup
	@$(BIN)/python -m bench $(BENCH)

evidence: setup
	@$(BIN)/python -m bench.evidence $(SCENARIO) $(if $(SCALE),--scale $(SCALE))

bench-migrations: setup
	@$(BIN)/python -m bench.migrations $(BENCH)

chaos-migrations: setup
	@$(BIN)/python -m chaos $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED))

faults: setup
	@$(BIN)/python -m lab.faults $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(DO),--do $(DO)) \
	$(if $(LEADERS),--leaders $(LEADERS))

fuzz-promql: setup
	@FUZZ_SECONDS=$(or $(SECONDS),600) $(BIN)/python -m pytest -q -s -p no:cacheprovider -o timeout=0 tests/adapters/test_promql_fuzz.py

wheel: setup
	@$(UV) build --quiet --wheel --out-dir build

# In an environment of its own, so that the archive holds what the plugin needs and nothing of ours.
krew:
	@$(UV) run --quiet --frozen --isolated --no-editable --no-default-groups --group release --python $(PYTHON) python tools/krew/build.py "$(RELEASES)"

clean:
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build
