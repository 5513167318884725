#!/usr/bin/env bash
# The tests against transformers and peft, in an environment of their own (.venv-hf).
#
#   ./launch/test_hf.sh              about a minute, once torch is there
#   ./launch/test_hf.sh -- -k llama  anything after -- goes to pytest
#
# torch's Linux wheels bring CUDA's libraries and do not start without them: 5 GB more
# on disk. Where it cannot be installed, the tests are skipped and a line says so.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
venv=.venv-hf size=8
if [ "${1:-}" = "--" ]; then shift; fi
# In a process of its own: a failed installation ends it.
if ! (setup_venv dev hf); then
  say "SKIPPED: torch, transformers and peft could not be installed (see above)"
  exit 0
fi
exec "$venv/bin/python" -m pytest -m hf tests/hf "$@"
