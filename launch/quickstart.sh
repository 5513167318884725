#!/usr/bin/env bash
# The first real run, from nothing but a Python 3.11 to 3.13.
#
#   ./launch/quickstart.sh          fetches SmolLM2-135M and real datasets (120 MB),
#                                   evaluates, fine-tunes, evaluates again, exports,
#                                   writes a report: 5 to 15 minutes on 2 cores
#   ./launch/quickstart.sh --tiny   a tiny T5 from scratch on generated tasks, no
#                                   download: under 2 minutes after installation
#
# Further options go to `flanjax quickstart` (see --help). Run it again after an
# interruption: it goes on where it was.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_venv
# Large buffers are reused instead of being returned to the system after each step:
# page faults otherwise cost a third of the time on CPU (measured, see WORKSPACE.md).
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000:glibc.malloc.arena_max=1}"
exec .venv/bin/flanjax quickstart "$@"
