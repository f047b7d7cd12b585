# `make check` for those without just.
.PHONY: check
check:
	uv run pytest
	uv run ruff check .
	uv run ruff format --check .
	uv run mypy
	uv run --group docs mkdocs build --strict
