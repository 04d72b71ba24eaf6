# Sourced by launch/demo and launch/test: makes the Python environment that they run in.
#
#   DTRAIN_VENV     another folder than .venv for the environment
#   DTRAIN_PYTHON   another Python than the newest found
#
# After `environment EXTRA,EXTRA` the environment is up to date, and python, dtrain and mpirun are on PATH.
# A second call with nothing changed touches no network.

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="${DTRAIN_VENV:-$root/.venv}"
case "$venv" in
  /*) ;;
  *) venv="$PWD/$venv" ;;
esac

say() { printf '== %s\n' "$*"; }

fail() {
  printf 'launch: %s\n' "$*" >&2
  exit 1
}

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
  local candidate
  if [[ -n "${DTRAIN_PYTHON:-}" ]]; then
    is_new_enough "$DTRAIN_PYTHON" || fail "DTRAIN_PYTHON must be Python 3.11 or newer, got $DTRAIN_PYTHON"
    command -v -- "$DTRAIN_PYTHON"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
    if command -v "$candidate" >/dev/null 2>&1 && is_new_enough "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer must be on PATH, found $(python3 --version 2>/dev/null || echo none);" \
    "install it (Debian, Ubuntu: apt-get install python3 python3-venv) or name it in DTRAIN_PYTHON"
}

make_venv() {
  local python="$1" log="$2"
  # Debian ships Python without ensurepip; venv then leaves a folder without pip behind.
  if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    fail "Python must be able to make environments, but $python lacks the module ensurepip;" \
      "Debian, Ubuntu: apt-get install python3-venv"
  fi
  # --clear empties the folder: only ever one that is an environment, or is empty
  if [[ -d "$venv" && ! -f "$venv/pyvenv.cfg" && -n "$(ls -A -- "$venv")" ]]; then
    fail "DTRAIN_VENV must be a new folder or a Python environment, got $venv, which holds other files"
  fi
  if ! "$python" -m venv --clear -- "$venv" >"$log" 2>&1; then
    cat -- "$log" >&2
    fail "could not make an environment at $venv with $python; the lines above say why"
  fi
}

install() {
  local extras="$1" log="$2"
  if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
    -e "${root}[$extras]" >"$log" 2>&1; then
    tail -n 20 -- "$log" >&2
    fail "pip could not install dtrain[$extras]; the whole log is $log"
  fi
}

fingerprint() {
  # what the installation depends on: the declared dependencies, the folder, the interpreter
  { cat -- "$root/pyproject.toml"; printf '%s\n' "$root" "$1"; } | cksum
}

environment() {
  local extras="$1" python stamp wanted log
  python="$(find_python)"
  stamp="$venv/dtrain-${extras//,/-}.stamp"
  wanted="$(fingerprint "$("$python" --version 2>&1)")"
  if [[ -f "$stamp" && "$(<"$stamp")" == "$wanted" && -x "$venv/bin/dtrain" ]]; then
    say "environment: $venv is up to date"
  else
    log="$(mktemp "${TMPDIR:-/tmp}/dtrain-install.XXXXXX")"
    if ! is_new_enough "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
      say "environment: making $venv with $("$python" --version 2>&1)"
      make_venv "$python" "$log"
    fi
    say "environment: installing dtrain[$extras] (a few minutes the first time)"
    install "$extras" "$log"
    printf '%s\n' "$wanted" >"$stamp"
    rm -f -- "$log"
  fi
  export PATH="$venv/bin:$PATH"
  export VIRTUAL_ENV="$venv"
  unset PYTHONHOME
}
