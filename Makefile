# `make study` reruns the study, `make test` tests the system; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What a user says, `make again RUN=resnet-20`; variables of the same name that other programs export change nothing.
SAID := AGAINST APPLY BEGIN CPUS DAYS ENSEMBLE FROM GPUS NAME NODES PRICE RUN S3 SPEEDS STUDY
$(foreach name,$(SAID),$(if $(findstring command,$(origin $(name))),,$(eval override $(name) :=)))
export PATH := $(CURDIR)/$(BIN):$(PATH)

# of another program's Python; `pipeline/environment.py` does the same where no make is
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONOPTIMIZE PYTHONWARNINGS PYTHONINSPECT PYTHONSTARTUP

.PHONY: help install study status up down cluster-up cluster-down team-up team-down team-user doctor fsck gc again project attest quick trial-kills trial-hosts trial-environments trial-faults trial-memory trial-page trial-s3 trial-verdicts trials jobs stop submit plan forget bring export ui serve publish verify page paper params check check-types check-rest test bench gpu-check lock schema architecture

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(VENV)/.installed ## create the virtual environment .venv from requirements.lock

$(VENV)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@# uv takes a package for installed of which it was interrupted while it wrote it: then all is done afresh
	@test ! -e $(VENV)/.installing && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@touch $(VENV)/.installing
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/python -m infra.local.hook
	@# compiles what each study imports; all of it would take a minute
	@$(BIN)/python -c "import ray.train.torch, ray.tune" & ray=$$!; $(BIN)/python -c "import dvc.cli, mlflow.tracking" && wait $$ray
	@rm $(VENV)/.installing
	@touch $@

study: install params up ## rerun the study in params.yaml; STUDY=name first copies studies/name.yaml there
	@python -m infra.local study

params: ## copy a ready-made study to params.yaml: make params STUDY=name
ifneq ($(STUDY),)
	@bash infra/local/put-study.sh "$(STUDY)"
endif

up: install ## start the embedded S3 server if it is needed, point DVC's remote at S3
	@python -m infra.local up

down: install ## stop the embedded S3 server; its data stay
	@python -m infra.local down

status: install ## show what is running and where its data are
	@python -m infra.local status

cluster-up: install ## start a Ray cluster on this machine (a head, two workers) to try things out
	@python -m infra.local cluster-up

cluster-down: install ## stop that cluster
	@python -m infra.local cluster-down

team-up: install ## start a team's MLflow on this machine: PostgreSQL, passwords (STUDY_TEAM_PORT, default 5002)
	@python -m infra.local team-up

team-user: install ## add a user of that MLflow: make team-user NAME=ada
	@python -m infra.local team-user "$(NAME)"

team-down: install ## stop that MLflow; its data stay
	@python -m infra.local team-down

jobs: install ## list the jobs on the cluster that RAY_ADDRESS names
	@python -m pipeline.commands.jobs

stop: install ## stop a job on that cluster: make stop RUN=<row, job or stale>
	@python -m pipeline.commands.jobs stop "$(RUN)"

submit: install ## submit the study to that cluster and return
	@dvc repro prepare && python -m pipeline.commands.submit

plan: install ## predict how long the study will take: make plan [NODES= CPUS= GPUS= PRICE= SPEEDS=rows.yaml]
	@dvc repro --quiet prepare && python -m pipeline.commands.plan "nodes=$(NODES)" "cpus=$(CPUS)" "gpus=$(GPUS)" "price=$(PRICE)" "speeds=$(SPEEDS)"

again: install up ## train, search or pack afresh: make again RUN=<row, tune@search or prepare>
	@python -m pipeline.commands.again "$(RUN)"

project: install ## draw a new project id, for a copy of this project that becomes another study
	@python -m infra.project

attest: install ## show that changed source still computes the same, so that results stay (BEGIN=1: begin anew)
	@python -m infra.attest $(if $(BEGIN),--begin)

forget: install ## delete a training or search, such as one that other code began: make forget RUN=<key>
	@python -m pipeline.commands.forget "$(RUN)"

bring: install up ## commit what a machine without S3 has trained: make bring FROM=<folder>
	@python -m pipeline.commands.bring "$(FROM)"

export: install ## write a trained row as ONNX and torch.export: make export RUN=<row>
	@python -m pipeline.commands.export "$(RUN)"

fsck: install up ## check every hash and reference of what is on S3
	@python -m pipeline.commands.fsck

gc: install up ## show what no branch, tag or clone needs on S3; APPLY=1 deletes it (DAYS=7: not what is newer)
	@python -m pipeline.commands.gc "apply=$(APPLY)" "days=$(DAYS)"

doctor: install ## check everything that the study needs, and say how to fix what is wrong
	@python -m infra.local doctor

ui: install ## serve the MLflow UI on loopback, behind a token (STUDY_UI_PORT, default 5000)
	@python -m infra.local ui

serve: install ## classify images by HTTP, behind a token: make serve RUN=<row> or ENSEMBLE=1 (STUDY_SERVE_PORT, default 5001)
	@python -m pipeline.commands.serve "run=$(RUN)" "ensemble=$(ENSEMBLE)"

verify: install ## compare the results with the committed reference, or with AGAINST=<report.json>
	@python -m pipeline.commands.verify "against=$(AGAINST)"

page: install ## write the page of a report beside another: make page FROM=... AGAINST=.../report.json
	@python -m pipeline.commands.page "$(FROM)" "$(AGAINST)"

paper: install ## write the report's tables as LaTeX and its pictures as PDF to report/paper
	@python -m pipeline.commands.paper

publish: install ## send to MLflow whatever it lacks
	@python -m pipeline.commands.publish

check: install ## check with ruff and mypy; import rules, schema, attested source, picture of the imports
	@$(MAKE) --no-print-directory -j2 check-types check-rest

check-types: # the longest, on a core of its own
	mypy

check-rest:
	ruff check .
	ruff format --check .
	lint-imports
	python -m infra.schema --check
	python -m infra.attest --check
	python -m infra.architecture --check

quick: install ## run unit tests and static checks, without services, in a minute
	ruff check . && ruff format --check . && lint-imports >/dev/null && mypy
	pytest -q -n 2 -m "not (integration or slow or trial)" --ignore=tests/storage --ignore=tests/tracking

test: install ## run all tests but the trials, with real S3, Ray, MLflow and DVC, three files at a time
	pytest -n 3 --dist loadfile --no-loadscope-reorder

trial-kills: install ## kill a training and a cluster's worker ten times at random moments
	pytest -m trial -k killed_at_random

trial-hosts: install ## lose hosts for good and join others (network namespaces, as root)
	pytest -m trial -k "host or head or elastic" tests/integration

trial-environments: install ## run a whole study in each of some thirty hostile environments
	pytest -m trial tests/integration/test_environments.py

trial-faults: install ## plant faults one by one: do their tests catch each?
	python -m tests.planted_faults

trial-s3: install ## run whole studies on another S3: make trial-s3 S3=<file of its variables>
	TRIAL_S3="$(S3)" pytest -m trial tests/integration/test_another_s3.py

trial-verdicts: install ## run the default study from five base seeds, and as another processor, 5 minutes each
	pytest -m trial tests/integration/test_verdicts.py

trials: install ## run every trial but trial-faults
	pytest -m trial

trial-memory: install ## train 1,202 layers at batch 128 within 16 GB
	pytest -m trial -k 1202

trial-page: install ## look at the report in headless Chromium (needs Node.js, whose npm fetches the browser)
	pytest -m trial tests/report/test_browser.py

bench: install ## measure the training loop and the input of photographs against conventional ones
	python -m benchmarks.bench
	python -m benchmarks.photos

gpu-check: install ## check on this machine's GPU what a CPU cannot show
	python -m benchmarks.gpu_check

architecture: install ## draw the picture in docs/architecture.md from the code's imports
	python -m infra.architecture

schema: install ## write docs/schema/*.json from the types
	python -m infra.schema

lock: install ## resolve requirements.lock anew
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
	  --quiet --output-file requirements.lock
