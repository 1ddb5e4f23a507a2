# mempressure: every command that people rely on. Each installs what it needs and says what it is doing.

.DEFAULT_GOAL := help
PY := .venv/bin/python
TESTS ?= tests
# Files of tests at once: most of them wait more than they compute, so three on two cores take about half the time of one.
WORKERS ?= 3

.PHONY: help up demo test lint format bench engines need-engines need-test-engines need-bench-engines lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: .venv/.demo engines ## run everything until Ctrl-C: engines, services, sample and load
	@exec $(PY) -m stack up

demo: .venv/.demo need-engines ## a bounded proof: pressure, alert, webhook, memory given back (build/demo.json)
	@exec $(PY) -m stack demo

test: .venv/.dev need-test-engines lint ## check everything: lint, types, unit, rules, integration, end to end
	$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

lint: .venv/.dev ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: .venv/.dev ## let ruff format the code
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format .

bench: .venv/.bench need-bench-engines ## measure; writes benchmarks/results.json, docs/benchmarks.md, README's table
	$(PY) -m benchmarks

# `up` runs without the engines where they cannot be had; the others need them.
engines: ## install Prometheus and Alertmanager, if this machine can have them
	@scripts/install-engines || true

need-engines:
	@scripts/install-engines

need-bench-engines:
	@scripts/install-engines redis-server prometheus-node-exporter earlyoom

need-test-engines:
	@scripts/install-engines redis-server chromium docker-compose prometheus-node-exporter zsh

.venv/.demo: requirements/demo.txt scripts/make-venv
	@scripts/make-venv demo
	@touch $@

.venv/.bench: requirements/bench.txt scripts/make-venv
	@scripts/make-venv bench
	@touch $@

.venv/.dev: requirements/dev.txt scripts/make-venv
	@scripts/make-venv dev
	@touch $@

lock: .venv/.dev ## pin the newest versions of all requirements, with hashes
	@scripts/lock

clean: ## remove what the commands made
	rm -rf .venv .engines .services build .mypy_cache .ruff_cache .pytest_cache .hypothesis
