# Sourced by the other scripts: makes `.venv` and keeps what is installed in it in step with pyproject.toml.
#
# Sets `root` (the repository) and `bin` (the environment's programs), and goes to `root`.
# `ensure_venv EXTRAS` installs the package, editable, with those extras (`server`, or `server,test,lint`), unless that was
# done since pyproject.toml last changed. PYTHON names the interpreter to make the environment with.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$root/.venv/bin
cd "$root" || exit 1

say() { printf '%s\n' "$*" >&2; }

# Prints the first interpreter that is new enough.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
  say "trio-ws needs Python 3.11 or newer, and none was found on the PATH."
  say "Install one, or name it: PYTHON=/path/to/python3.11 $0"
  return 1
}

# Ends the script when the environment can't be made or filled: half an environment helps nobody.
ensure_venv() {
  local extras=$1 python wanted extra current=yes
  if ! "$bin/python" -c 'import pip' >/dev/null 2>&1; then
    python=$(find_python) || exit 1
    say "Making .venv with $("$python" --version) ..."
    if ! "$python" -m venv --clear "$root/.venv"; then
      say "The environment could not be made. On Debian and Ubuntu the package python3-venv is needed."
      exit 1
    fi
  fi
  # The path is in the stamp because an editable install points at it: a tree that was moved is installed again.
  wanted=$({ printf '%s\n' "$root"; cat "$root/pyproject.toml"; } | cksum)
  for extra in ${extras//,/ }; do
    [ "$(cat "$root/.venv/.installed-$extra" 2>/dev/null)" = "$wanted" ] || current=no
  done
  if [ $current = no ]; then
    say "Installing trio-ws with the extras $extras ..."
    "$bin/python" -m pip install -qq --disable-pip-version-check --editable "$root[$extras]" || exit 1
    for extra in ${extras//,/ }; do
      printf '%s\n' "$wanted" >"$root/.venv/.installed-$extra"
    done
  fi
}
