# The commands: make demo, make quick, make test, make chaos, make docker, make check, make bench.
# Everything lives in .venv; nothing is installed outside this folder.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
SPREAD := --dist loadfile --no-loadscope-reorder

.PHONY: help demo quick test chaos docker soak check bench format docs lock clean

help:
	@echo "make demo    run everything on this machine: Valkey, a local 100ms, the gateway, four users"
	@echo "make quick   run the tests that need no server and no argon2, in half a minute"
	@echo "make test    run the whole test suite; PYTEST_ARGS for a part of it"
	@echo "make chaos   break Redis, 100ms, connections and the gateway under load; CHAOS_WRITE=1 writes docs/reliability.md"
	@echo "make docker  build the image, measure it, and start three gateways with compose; needs a Docker engine"
	@echo "make soak    load a whole installation for 10 minutes, or SECONDS, and check that nothing grows or is lost"
	@echo "make check   lint, format, types, import rules, spelling, generated pages"
	@echo "make bench   measure what a decision costs, and compare join tokens with other servers"
	@echo "make format  format the code"
	@echo "make docs    regenerate the generated pages in docs/"
	@echo "make lock    renew the hash-locked requirements (needs uv)"

demo: .venv/.demo
	@exec $(BIN)/gateway demo

WITHOUT_ARGON2 := --ignore=tests/unit/gateway/http/test_login_throttle.py \
	$(addprefix --ignore=tests/unit/auth/,test_passwords.py test_accounts.py test_account_changes.py)
quick: .venv/.dev
	$(BIN)/python -m pytest -q $(SPREAD) -n 2 --hypothesis-profile quick tests/unit $(WITHOUT_ARGON2)

# pytest compiles the asserts of all modules anew in each process, for 5 s, unless it may keep them in __pycache__.
test quick chaos docker: export PYTHONDONTWRITEBYTECODE :=

# More processes than cores, because most tests wait for servers. Those that measure time come last, with nothing beside.
test: .venv/.dev
ifdef PYTEST_ARGS
	$(BIN)/python -m pytest $(PYTEST_ARGS)
else
	$(BIN)/python -m pytest $(SPREAD) -n 4 -m "not alone" --durations=10 --ignore=tests/chaos --ignore=tests/docker
	$(BIN)/python -m pytest -m alone --durations=10 $(shell grep -rl pytest.mark.alone tests --include='test_*.py' --exclude-dir=chaos --exclude-dir=docker)
endif

# One fault at a time: beside a second load of 200 requests a second, a new worker took 3 s to start, not 1.
chaos: .venv/.dev
	$(BIN)/python -m pytest --durations=10 tests/chaos

docker: .venv/.dev
	$(BIN)/python -m pytest --durations=10 tests/docker

soak: .venv/.dev
	$(BIN)/python -m benchmarks.soak --seconds $(or $(SECONDS),600)

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python -m docs.generate --check

bench: .venv/.dev
	$(BIN)/python -m benchmarks.limiter $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.http $(BENCH_ARGS)

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.dev
	$(BIN)/python -m docs.generate
	$(BIN)/python -m docs.gcra

# Each stamp stands for what its lock file says is installed; the dev set contains the demo set.
.venv/.demo: requirements/demo.txt pyproject.toml
	@$(MAKE) --no-print-directory .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/demo.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: requirements/dev.txt pyproject.toml
	@$(MAKE) --no-print-directory .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ .venv/.demo

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed; set PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
lock:
	$(LOCK) pyproject.toml requirements/build.in --extra postgres -o requirements/runtime.txt
	$(LOCK) pyproject.toml requirements/build.in --extra postgres --extra traces -c requirements/runtime.txt -o requirements/traces.txt
	$(LOCK) pyproject.toml requirements/build.in --extra demo -c requirements/runtime.txt -o requirements/demo.txt
	$(LOCK) pyproject.toml requirements/build.in --extra postgres --extra traces --extra demo --extra dev -c requirements/demo.txt -c requirements/traces.txt -o requirements/dev.txt
	$(LOCK) requirements/release.in -c requirements/dev.txt -o requirements/release.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis build dist
