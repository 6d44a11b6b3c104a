# Thin names for the scripts; each script sets up first what it needs. Without make: bash scripts/NAME.sh

.PHONY: help setup demo test lint ui sql bench report baseline dashboards lock clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ' *## ' '/^[a-z]+:.* ## / { sub(/:.*/, "", $$1); printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## make this checkout ready to run (docs/setup.md)
	@bash scripts/setup.sh

demo: ## set up, run lab L06 on this machine, print its table
	@bash scripts/demo.sh

test: ## lint, types, tests; ARGS="tests/unit -k lease" goes to pytest
	@bash scripts/test.sh $(ARGS)

lint: ## style, format and types alone
	@bash scripts/lint.sh

ui: ## Dagster's UI on 127.0.0.1, until Ctrl-C
	@bash scripts/ui.sh

# As typed: $ and quotes belong to SQL, not to make or the shell.
sql: export LABS_QUESTION = $(value Q)
sql: ## ask the warehouse: make sql Q="select 1", or Q=the name of a file in warehouse/queries
	@bash scripts/labs.sh sql -- "$$LABS_QUESTION"

report: ## write the year in numbers from what the warehouse holds
	@bash scripts/labs.sh report

baseline: ## pin L06's newest numbers in results/baselines and show them in README; ARGS=--again for a further one
	@bash scripts/labs.sh baseline pin L06 $(ARGS)
	@bash scripts/labs.sh baseline readme

bench: ## run all benchmarks, about 45 minutes (docs/benchmarks.md)
	@bash scripts/bench.sh

dashboards: ## write Grafana's dashboards from their code
	@bash scripts/dashboards.sh

lock: ## resolve pyproject.toml into requirements.lock; ARGS=--upgrade for newer versions
	@bash scripts/lock.sh $(ARGS)

clean: ## remove .venv, .tools, .dagster and caches; keep what was measured
	@bash scripts/clean.sh
