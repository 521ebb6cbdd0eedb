# Copyright: (c) 2026, Packetwatch authors
# SPDX-License-Identifier: GPL-3.0-or-later

# Everything runs in a copy of what git tracks or would add: nothing is tested that is not shipped.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BUILD ?= .build
GATES ?=
KEEP ?=
FLEET ?=

build := $(abspath $(BUILD))
venv := $(build)/venv
copy := $(build)/ansible_collections/packetwatch/xdp
python := $(venv)/bin/python
run_in_copy := cd $(copy) && PATH=$(venv)/bin:$$PATH PYTHONPATH=$(copy)/tests \
	PYTHONPYCACHEPREFIX=$(build)/cache/bytecode ANSIBLE_COLLECTIONS_PATH=$(build) KEEP=$(KEEP) FLEET=$(FLEET)

.PHONY: help check test release demo docs bench bench-peers bench-fleet soak lab-images build packages packages-test packages-bench venv docs-venv rulebook-venv contract-venv clean

help: ## List the commands.
	@echo "make COMMAND [VARIABLE=VALUE]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo 'GATES="ruff unit" runs only these gates, KEEP=1 leaves the demo running, BUILD=DIR builds elsewhere.'

check: packages build ## Run the static gates, the unit tests and the kernel tests that are quick.
	@$(python) tests/tools/gates.py $(build) check $(GATES)

test: packages-test build docs-venv rulebook-venv contract-venv ## Run all gates and tests, and scenarios on containers and virtual machines.
	@$(python) tests/tools/gates.py $(build) test $(GATES)

release: packages-test build ## Make the release of this version: build/release.
	@$(run_in_copy) $(python) $(CURDIR)/tests/tools/release.py $(build)/manifest $(CURDIR)/build/release

demo: packages-test build ## Show a small fleet under attack; FLEET=1: its hosts share bans; KEEP=1 leaves it running.
	@$(run_in_copy) $(python) -m lab.demo

docs: build docs-venv ## Build the documentation site: .build/site/html.
	@PATH=$(venv)/bin:$$PATH ANSIBLE_COLLECTIONS_PATH=$(build) $(build)/docs-venv/bin/python docsite/build.py $(build)

bench: packages-bench build ## Measure the datapath beside its rivals: build/bench.json, build/bench.svg.
	@$(run_in_copy) $(python) -m bench $(CURDIR)/build

bench-peers: packages-test build ## Run the same scans against psad and portsentry of Debian.
	@$(run_in_copy) $(python) -m pytest -q -s -p no:cacheprovider tests/bench/peers.py

bench-fleet: packages-test build ## Measure how fast bans travel in a fleet of 50 hosts: build/bench-fleet.json.
	@$(run_in_copy) $(python) -m bench.fleet $(CURDIR)/build

soak: packages-test build ## Take the store away from a fleet for ten minutes, and compare kernels with it afterwards.
	@$(run_in_copy) $(python) -m pytest -q -s -p no:cacheprovider tests/fleet/soak.py

lab-images: packages-test build ## Build the images of containers and virtual machines.
	@$(run_in_copy) $(python) -m lab images

build: venv ## Copy what is shipped into the build folder.
	@$(python) tests/tools/sync.py $(build)

packages:
	@tests/tools/bootstrap check

packages-test:
	@tests/tools/bootstrap test

packages-bench:
	@tests/tools/bootstrap bench

venv: packages
	@tests/tools/venv $(venv) tests/requirements.txt

docs-venv: packages
	@tests/tools/venv $(build)/docs-venv docsite/requirements.txt

rulebook-venv: packages
	@tests/tools/venv $(build)/rulebook-venv tests/fleet/rulebook.txt

contract-venv: packages
	@tests/tools/venv $(build)/contract-venv tests/fleet/contract.txt

clean: ## Take down what runs from the build folder, and remove it.
	@if compgen -G '/run/packetwatch-lab/*' >/dev/null; then PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tests python3 -m lab down --below $(build); fi
	rm -rf $(build)
