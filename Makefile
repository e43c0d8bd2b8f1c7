# Everyday commands, in an environment with `pip install -e '.[test]'`.
.PHONY: test lint types check bench format

check: lint types test

test:
	python -m pytest

lint:
	ruff check .
	ruff format --check .

types:
	mypy

format:
	ruff check --fix .
	ruff format .

bench:
	python benchmarks/recipe.py
	python benchmarks/step.py
