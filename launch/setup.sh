# Makes .venv from the lock; sourced by the scripts beside it, never run by itself.
# A script may have another directory than .venv: it sets `venv`, and `size` in GB.
#
# Needs nothing but a Python 3.11 to 3.13 with venv; takes the newest one found, or
# $FLANJAX_PYTHON. Quick when nothing has changed since the last time.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

venv=.venv size=3

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

# Runs a command and says every 10 s that it still runs.
with_heartbeat() {
  local label=$1 start=$SECONDS; shift
  "$@" &
  local job=$!
  trap 'kill "$job" 2>/dev/null; exit 130' INT TERM
  while kill -0 "$job" 2>/dev/null; do
    sleep 1
    local spent=$((SECONDS - start))
    if ((spent > 0 && spent % 10 == 0)); then say "  ... $label (${spent} s)"; fi
  done
  trap - INT TERM
  wait "$job"
}

# A Python that starts, is 3.11 to 3.13 and can make virtual environments.
usable() {
  "$1" -c 'import sys, venv, ensurepip
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
  if [ -n "${FLANJAX_PYTHON:-}" ]; then
    usable "$FLANJAX_PYTHON" || die "FLANJAX_PYTHON=$FLANJAX_PYTHON is no Python 3.11 to 3.13 with venv"
    command -v "$FLANJAX_PYTHON"
    return
  fi
  local minor candidate
  for minor in 13 12 11; do
    # pyenv's shims fail for versions that are not selected, so look behind them too.
    for candidate in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python3; do
      if usable "$candidate"; then command -v "$candidate"; return; fi
    done
  done
  for candidate in python3 python; do
    if usable "$candidate"; then command -v "$candidate"; return; fi
  done
  die "no Python 3.11, 3.12 or 3.13 with the venv module found: install one (Debian: apt install python3-venv), or set FLANJAX_PYTHON"
}

# uv reads the lock; where its index cannot be reached, pip installs the same locked
# versions (hash-checked) by the user's own index settings.
install_locked() {
  local extras=("$@") sync=() extra
  for extra in "${extras[@]}"; do sync+=(--extra "$extra"); done
  local uv="$venv/bin/uv"
  # --inexact: leaves uv and whatever extras are there already.
  if UV_PROJECT_ENVIRONMENT="$venv" "$uv" sync --quiet --frozen --inexact "${sync[@]}"; then return; fi
  say "  uv could not install; trying pip with the same locked versions"
  "$uv" export --quiet --frozen --no-emit-project "${sync[@]}" --output-file "$venv/locked.txt" \
    && "$venv/bin/python" -m pip install --quiet --require-hashes -r "$venv/locked.txt" \
    && "$venv/bin/python" -m pip install --quiet --no-deps --editable .
}

# setup_venv [extra ...]
setup_venv() {
  local python stamp
  if [ ! -x "$venv/bin/python" ] || ! usable "$venv/bin/python"; then
    python=$(find_python) || exit 2
    say "making $venv with $("$python" --version)"
    rm -rf "$venv"
    "$python" -m venv "$venv" || die "could not make $venv with $python"
  fi
  stamp="$(cat uv.lock pyproject.toml | cksum) $*"
  if grep -qxF "$stamp" "$venv/flanjax-installed" 2>/dev/null; then return; fi
  say "installing flanjax and its locked dependencies into $venv (about $size GB on disk)"
  with_heartbeat "fetching the installer" "$venv/bin/python" -m pip install --quiet 'uv>=0.9,<1' \
    || die "pip could not install uv: is a package index reachable? (pip's own settings hold)"
  with_heartbeat "installing" install_locked "$@" \
    || die "installation failed (see above); run this script again to go on"
  printf '%s\n' "$stamp" >>"$venv/flanjax-installed"
}
