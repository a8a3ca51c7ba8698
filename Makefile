# Everything there is to run, by name: `make` lists it.

PYTHON ?= python3
# ENGINE=no sets up without the inference engine: no C++ compiler needed, but no model runs in the node itself.
ENGINE ?= yes
# More arguments for pytest, as in: make test ARGS="-k link -x"
ARGS ?=

BIN := .venv/bin
SETUP := $(PYTHON) tools/setup.py $(if $(filter no,$(ENGINE)),--no-engine)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format sim bench bench-engine setup setup-dev engine pins clean

help: ## List what can be run
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## Three real nodes on this machine answer two questions
	@$(BIN)/python tools/demo.py

test: check ## Lint, types and the fast tests
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: setup-dev ## The long tests: many processes, long simulations
	@$(BIN)/python -m pytest -m slow -o faulthandler_timeout=3600 $(ARGS)

check: setup-dev ## Lint and types alone
	@$(BIN)/ruff check --quiet .
	@mkdir -p .cache/types && ln -sfn "$$($(BIN)/python -c 'import trio; print(*trio.__path__)')" .cache/types/trio
	@$(BIN)/mypy --no-error-summary

format: setup-dev ## Break long lines and sort imports
	@$(BIN)/ruff check --quiet --select I --fix .
	@$(BIN)/ruff format --quiet .

sim: setup ## Every simulated scenario: invariants, goals, baselines; more: .venv/bin/swarm sim --help
	@$(BIN)/swarm sim run --all --check $(ARGS)

bench: setup-dev ## Measure what the README claims, beside its goals
	@$(BIN)/python -m benchmarks $(ARGS)

bench-engine: setup-dev ## The inference engine beside llama-server, which is built first
	@server=$$($(BIN)/python tools/llama_server.py) && LLAMA_SERVER=$$server $(BIN)/python -m benchmarks engine

setup: ## Make .venv: pinned packages, and the engine built for this CPU
	@$(SETUP)

setup-dev: ## The same, with what the tests and checks need
	@$(SETUP) --dev

engine: ## Build the engine anew
	@$(SETUP) --rebuild-engine

pins: ## Write requirements/*.txt anew from requirements/*.in
	@$(PYTHON) tools/pins.py $(ARGS)

clean: ## Remove .venv and every cache; the built engine stays in the user's cache
	@rm -rf .venv .cache .set-up.lock .hypothesis .mypy_cache .pytest_cache .ruff_cache dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
