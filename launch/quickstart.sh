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
exec .venv/bin/flanjax quickstart "$@"
