# `make` lists the targets. Every target that needs .venv makes it first, from hash-locked requirements.
.DEFAULT_GOAL := help
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
PYTHON := .venv/bin/python

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: ## show a small fleet being walled, in network namespaces (needs root or sudo)
	@scripts/setup.sh --root
	@$(SUDO) .venv/bin/cellwall demo

test: ## run every suite, on the real kernel and real PostgreSQL too, within half an hour
	@scripts/setup.sh --root
	@scripts/suites.sh --seconds 1800 architecture unit property golden fuzz packaging contract stories kernel fleet

check: setup ## format, lint, strict types, and the tests that need no kernel
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright
	@scripts/suites.sh architecture unit property golden

kernel: ## run the tests on real nftables and conntrack
	@scripts/setup.sh --root
	@scripts/suites.sh kernel

bench: ## measure the design load, beside rivals where they can be had, and print the figures
	@scripts/setup.sh --bench
	@$(SUDO) $(PYTHON) -m tests.bench

deb: setup ## build the Debian packages into dist/
	packaging/deb/build.sh

packages: ## try packages and roles on whole machines, half an hour; needs root
	@scripts/setup.sh --packaging
	$(SUDO) env CELLWALL_PACKAGES=1 $(PYTHON) -m pytest tests/packaging -o faulthandler_timeout=900

golden: setup ## rewrite the golden files; review the difference
	CELLWALL_GOLDEN=rewrite $(PYTHON) -m pytest tests/golden
	@git --no-pager diff --stat -- tests/golden

docs: ## build the documentation into site/
	@scripts/setup.sh --docs
	.venv/bin/zensical build --clean

soak: ## run the property, contract and kernel tests for long, within an hour
	@scripts/setup.sh --root
	@CELLWALL_SOAK=1 scripts/suites.sh --seconds 3600 property contract kernel

soak-more: ## feed the parsers mutants and try whole fleets for long, within an hour
	@scripts/setup.sh --root
	@CELLWALL_SOAK=1 scripts/suites.sh --seconds 3600 fuzz fleet

lock: setup ## write requirements/*.txt anew from pyproject.toml
	@scripts/lock.sh

setup: ## make .venv, if it is not there yet
	@scripts/setup.sh

clean: ## remove what the targets made; .venv stays
	rm -rf build dist site .pytest_cache .ruff_cache .hypothesis .coverage .venv-setup.log
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo test check kernel bench deb packages golden docs soak soak-more lock setup clean
