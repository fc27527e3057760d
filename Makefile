# Two commands set everything up on a machine with Python and make: `make serve` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/pip install --quiet --constraint constraints.txt
# Of tests: they wait for half of their time. Each takes its share in one piece, so that its servers serve many tests.
PROCESSES = $(shell $(BIN)/python -c 'import os; print(2 * (os.cpu_count() or 1))')
PAGES = $(VENV)/.board $(VENV)/.graphiql
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help serve dev test coverage check format board graphiql wheel locks schema architecture soak bench bench-load release newest clean

help:
	@echo "make serve     serve sample data, and print the address to open (ARGS='--port 9000' adds options)"
	@echo "make dev       the same, started anew whenever a file of schema/ or server/ is saved"
	@echo "make test      everything that has to pass: make check, then the test suite"
	@echo "make coverage  the test suite, with the lines that it leaves out"
	@echo "make check     format, lint, types, layers, Dockerfile"
	@echo "make format    format, and mend what the linter can"
	@echo "make board     build the page at /board into the server (needs npm)"
	@echo "make graphiql  build the page at /graphiql into the server, so that it needs no internet (needs npm)"
	@echo "make wheel     make dist/*.whl, with these pages inside (needs npm)"
	@echo "make locks     write constraints.txt and web/*/package-lock.json anew, with the newest versions"
	@echo "make schema    write schema/schema.graphql and its reference in docs/reference/ anew, after a change of the schema"
	@echo "make architecture  write the table of modules in docs/architecture.md anew, after a change of docstrings"
	@echo "make newest    try the newest versions of the clients that the tests use, and say what broke (ARGS='graphql-ws' tries one)"
	@echo "make soak      the long tests that make test leaves out"
	@echo "make bench     measure serving beside others, and write BENCHMARKS.md (ARGS='--queries runs-20' repeats one row)"
	@echo "make bench-load  measure loading and reading of 100,000 runs"
	@echo "make release   date the CHANGELOG, commit and tag the version of server/__init__.py; pushes nothing"
	@echo "make clean     remove what these made"

serve: $(VENV)/.serve $(PAGES)
	$(BIN)/merlin-graphql serve --demo $(ARGS)

# One token and one key for all of its starts, so that a browser stays logged in.
dev: $(VENV)/.test $(PAGES)
	@secret() { $(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(32))'; }; \
	export MERLIN_GRAPHQL_TOKEN=$$(secret) MERLIN_GRAPHQL_SESSION_KEY=$$(secret); \
	echo "Log in at the address below with the token $$MERLIN_GRAPHQL_TOKEN"; \
	$(BIN)/watchfiles --filter python --sigint-timeout 15 '$(BIN)/merlin-graphql serve --demo $(ARGS)' schema server

test: check $(VENV)/.node $(VENV)/.codegen $(PAGES)
	$(BIN)/pytest -n $(PROCESSES) --dist worksteal $(ARGS)

coverage: $(VENV)/.test $(VENV)/.node $(VENV)/.codegen $(PAGES)
	$(BIN)/pytest -n $(PROCESSES) --dist worksteal --cov --cov-report=term $(ARGS)

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	.ci/contract $(BIN)/merlin-graphql

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What is installed is what the lock file names, by its checksum, and none of it runs anything of its own.
board graphiql:
	npm ci --prefix web/$@ --ignore-scripts --loglevel=error
	npm run --prefix web/$@ --silent build

wheel: board graphiql | $(BIN)/pip
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

locks: | $(BIN)/pip
	node web/lock.mjs web/board web/graphiql
	$(PYTHON) -m venv --clear $(VENV)/locks && $(VENV)/locks/bin/pip install --quiet --editable '.[dev]'
	$(VENV)/locks/bin/pip freeze --exclude-editable >constraints.txt

schema: $(VENV)/.serve
	$(BIN)/merlin-graphql schema export --output schema/schema.graphql
	$(BIN)/merlin-graphql schema export --format markdown --output docs/reference/$$($(BIN)/python -c 'import server; print(server.__version__)').md

release: test
	.ci/release

architecture: $(VENV)/.test
	$(BIN)/python -m tests.support.architecture --write

# In a copy of the repository: nothing is changed here.
newest: $(VENV)/.test $(VENV)/.codegen
	$(BIN)/python -m tests.support.newest $(ARGS)

soak: $(VENV)/.test $(VENV)/.node $(VENV)/.next $(VENV)/.schemathesis
	$(BIN)/pytest -n 0 -m soak $(ARGS)

bench: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks.serving $(ARGS)

bench-load: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks.load $(ARGS)

# ariadne-codegen needs another graphql-core than strawberry: a place of its own, which sgqlc and qlient share.
$(VENV)/.codegen: | $(BIN)/pip
	@$(PYTHON) -m venv $(VENV)/codegen && \
		$(VENV)/codegen/bin/pip install --quiet 'ariadne-codegen[subscriptions]>=0.14' 'sgqlc>=16' 'qlient>=1' || \
		echo "ariadne-codegen, sgqlc and qlient could not be installed: their tests are skipped"
	@touch $@

# schemathesis needs another graphql-core, too.
$(VENV)/.schemathesis: | $(BIN)/pip
	@$(PYTHON) -m venv $(VENV)/schemathesis && $(VENV)/schemathesis/bin/pip install --quiet 'schemathesis>=4' || \
		echo "schemathesis could not be installed: its tests are skipped"
	@touch $@

clean:
	rm -rf $(VENV) tests/node_modules tests/older/node_modules tests/dev_servers/node_modules tests/next/node_modules web/*/node_modules web/board/src/gql server/static dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage*

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.serve

# JavaScript clients: where they are not available, the tests that need them are skipped.
$(VENV)/.node: tests/package.json tests/older/package.json tests/dev_servers/package.json | $(BIN)/pip
	@if command -v npm >/dev/null; then \
		for directory in tests tests/older tests/dev_servers; do \
			npm install --prefix $$directory --ignore-scripts --loglevel=error --no-audit --no-fund || echo "npm could not install: tests are skipped"; \
		done; \
	fi
	@touch $@

$(VENV)/.next: tests/next/package.json | $(BIN)/pip
	@if command -v npm >/dev/null; then \
		npm install --prefix tests/next --ignore-scripts --loglevel=error --no-audit --no-fund || echo "npm could not install: a test is skipped"; \
	fi
	@touch $@

# Where a page can't be built, the server is served without it.
$(VENV)/.board: PAGE = the board
$(VENV)/.board: INSTEAD = /board says how to build it
$(VENV)/.board: $(shell find web/board \( -name node_modules -o -name gql \) -prune -o -type f -print 2>/dev/null)
$(VENV)/.board: $(wildcard web/*.mjs queries/board/*.graphql) schema/schema.graphql
$(VENV)/.graphiql: PAGE = GraphiQL
$(VENV)/.graphiql: INSTEAD = the page at /graphiql loads its public copy
$(VENV)/.graphiql: $(wildcard web/graphiql/*.* web/*.mjs queries/*.graphql)
$(PAGES): | $(BIN)/pip
	@if ! command -v npm >/dev/null; then \
		echo "There is no npm to build $(PAGE): $(INSTEAD)"; \
	elif $(MAKE) --no-print-directory $(@:$(VENV)/.%=%); then \
		touch $@; \
	else \
		echo "npm could not build $(PAGE), as said above: $(INSTEAD). The next make tries again"; \
	fi
