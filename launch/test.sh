#!/usr/bin/env bash
# The test suite, from nothing but a Python 3.11 to 3.13: lint, types, fast tests.
#
#   ./launch/test.sh                 at most 8 minutes on 2 cores
#   ./launch/test.sh --slow          the slow tests as well
#   ./launch/test.sh -- -k packing   anything after -- goes to pytest
#
# The tests against transformers and peft have a script of their own: test_hf.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_venv dev
select=(-m "not slow and not hf")
if [ "${1:-}" = "--slow" ]; then select=(-m "not hf"); shift; fi
if [ "${1:-}" = "--" ]; then shift; fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyright
exec .venv/bin/python -m pytest "${select[@]}" "$@"
