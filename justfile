# The same checks as .ci/run, for people.
check: test lint types docs

test *args:
    uv run pytest {{args}}

# Tests that need minutes of processor time.
slow:
    uv run pytest -m slow

lint:
    uv run ruff check .
    uv run ruff format --check .

types:
    uv run mypy

docs:
    uv run --group docs mkdocs build --strict

# Writes the pages and figures that follow from the code; `just pages --check` only compares.
pages *args:
    uv run python tools/write_docs.py {{args}}

# Writes the numbers of README and docs from their result files; `just numbers --check` only compares.
numbers *args:
    uv run python benchmarks/write_numbers.py {{args}}

# Rewrites what ruff can rewrite.
fix:
    uv run ruff check --fix .
    uv run ruff format .
