#!/usr/bin/env bash
# Makes this checkout ready to run: uv, the locked packages, Prometheus and Alertmanager, Dagster's instance. Everything
# lands below the checkout (docs/setup.md); nothing is installed in the system. A second run has nothing to do and says
# so, unless the caller is another script, with --quiet.
set -euo pipefail
shopt -s inherit_errexit
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$LABS_ROOT"

UV_MINIMUM=0.8.0 # the oldest that was tried with this script; scripts/uv.txt pins the one that is fetched
STAMP=.venv/labs-installed # which inputs the packages were installed from
MADE_FOR=.venv/labs-made-for # where, and for which Python, the environment was made: a moved one is broken
INITIALISED=.dagster/labs-initialised

# To stderr, so that `make sql Q=… >file` holds the answer alone.
say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}
has() { command -v "$1" >/dev/null; }

inputs_digest() {
    { cat requirements.lock pyproject.toml scripts/setup.sh && .venv/bin/python -VV; } 2>/dev/null | sha256sum
}
venv_identity() {
    # $1: a Python. Only its minor version counts: site-packages are per minor version.
    "$1" -I -c 'import sys; print("%s, Python %d.%d" % (sys.argv[1], *sys.version_info[:2]))' "$LABS_ROOT" 2>/dev/null
}
venv_is_ours() { [[ -s $MADE_FOR && $(venv_identity .venv/bin/python) == "$(<"$MADE_FOR")" ]]; }
packages_are_ready() { [[ -s $STAMP ]] && venv_is_ours && [[ $(inputs_digest) == "$(<"$STAMP")" ]]; }
prometheus_is_ready() { has prometheus && has promtool; }
# Debian calls the program by its package's name, everybody else by its own.
alertmanager_is_ready() { has alertmanager || has prometheus-alertmanager; }
instance_is_ready() { [[ -e $INITIALISED ]] && cmp -s deploy/local/dagster.yaml .dagster/dagster.yaml; }
all_is_ready() { packages_are_ready && prometheus_is_ready && alertmanager_is_ready && instance_is_ready; }

base_python() {
    # sys._base_executable: when a virtual environment is active (this one, even), the Python that it was made from.
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        "$name" -I -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1); print(sys._base_executable)' \
            2>/dev/null && return
    done
    if has python3; then
        fail "Python 3.11 or newer is needed, and python3 is $(python3 --version 2>&1 | cut -d' ' -f2):" \
            "install a newer one, e.g. sudo apt-get install python3.11"
    fi
    fail "Python 3.11 or newer is needed: sudo apt-get install python3"
}

# Takes the files that match $2 out of the system's package $1 into the folder $3, without installing the package: no
# root, no service started, and apt checks its signature as for any other. With package lists that are missing or too
# old, it fetches lists of its own.
take_from_system_package() {
    local package=$1 files=$2 into=$3 work log=$LABS_ROOT/.tools/apt.log
    has apt-get && has dpkg-deb || return 1
    work=$(mktemp -d "$LABS_ROOT/.tools/apt.XXXXXX")
    # Sandbox::User: as root, apt would switch to a user who can't write here.
    local apt=(apt-get -q -o APT::Sandbox::User=root)
    local own_lists=(-o "Dir::State::Lists=$LABS_ROOT/.tools/apt-lists" -o "Dir::Cache=$LABS_ROOT/.tools/apt-cache")
    if (
        cd "$work"
        "${apt[@]}" download "$package" && exit
        mkdir -p "$LABS_ROOT/.tools/apt-lists/partial" "$LABS_ROOT/.tools/apt-cache/archives/partial"
        # One unreachable third-party source fails the update as a whole; the download tells whether it mattered.
        "${apt[@]}" "${own_lists[@]}" update || true
        "${apt[@]}" "${own_lists[@]}" download "$package"
    ) </dev/null >"$log" 2>&1 && dpkg-deb -x "$work"/*.deb "$work/unpacked" 2>>"$log"; then
        mkdir -p "$into"
        # shellcheck disable=SC2086 # $files is a pattern
        mv "$work/unpacked/"$files "$into"
        rm -rf "$work"
    else
        rm -rf "$work"
        grep -E '^[EW]: ' "$log" | tail -n 5 | sed 's/^/setup: apt says /' >&2
        return 1
    fi
}

# Prints the command that runs pip, one word a line. A Debian or Ubuntu python3 comes without pip, venv or ensurepip.
pip_command() {
    local python=$1 wheel
    if "$python" -m pip --version >/dev/null 2>&1; then
        printf '%s\n' "$python" -m pip
        return
    fi
    take_from_system_package python3-pip-whl 'usr/share/python-wheels/pip-*.whl' .tools/pip ||
        fail "neither uv nor pip is installed, and apt can't fetch one: sudo apt-get install python3-pip"
    wheel=$(echo .tools/pip/pip-*.whl)
    printf '%s\n' "$python" "$wheel/pip" # a wheel is a zip file, and Python runs what is in one
}

uv_is_recent() {
    local version
    version=$(uv --version 2>/dev/null | cut -d' ' -f2) || return 1
    [[ -n $version && $(printf '%s\n' "$UV_MINIMUM" "$version" | sort -V | head -n 1) == "$UV_MINIMUM" ]]
}

provide_uv() {
    local python=$1 pip
    if uv_is_recent; then
        return
    fi
    say "fetching uv"
    pip=$(pip_command "$python")
    mapfile -t pip <<<"$pip"
    rm -rf .tools/uv
    PIP_ROOT_USER_ACTION=ignore "${pip[@]}" install --quiet --disable-pip-version-check --no-input --no-deps --only-binary :all: \
        --require-hashes --requirement scripts/uv.txt --target .tools/uv >&2 ||
        fail "pip could not fetch uv (above). Check the network, the proxy and the certificates" \
            "(sudo apt-get install ca-certificates), or install uv $UV_MINIMUM or newer yourself"
    hash -r # bash remembers the older uv
}

# Shared libraries that a wheel expects of the system and a minimal system lacks. Only tests need them.
provide_libraries() {
    local library package
    while read -r library package; do
        .venv/bin/python -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$library" 2>/dev/null && continue
        say "fetching $library from the system's packages, without installing it"
        take_from_system_package "$package" "usr/lib/*/${library%%.*}.so.*" .tools/lib ||
            say "some tests will fail without $library: sudo apt-get install $package"
    done <<'LIBRARIES'
libgomp.so.1 libgomp1
libatomic.so.1 libatomic1
LIBRARIES
    # libgomp: xllamacpp, the engine that is not ours. libatomic: the browser tests' playwright.
}

install_packages() {
    local python
    python=$(base_python)
    provide_uv "$python"

    # The user's index for pip is the user's index for uv, which doesn't read pip's variables.
    if [[ -n ${PIP_INDEX_URL:-} && -z ${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-} ]]; then
        export UV_DEFAULT_INDEX=$PIP_INDEX_URL
    fi
    # Set by people and CI systems for other projects; each contradicts what follows.
    unset UV_SYSTEM_PYTHON UV_TARGET UV_PREFIX UV_REQUIRE_HASHES UV_PYTHON VIRTUAL_ENV

    rm -f "$STAMP"
    if ! venv_is_ours; then
        say "making .venv with $("$python" --version) ($python)"
        rm -rf .venv
        uv venv --quiet --no-python-downloads --python "$python" .venv
        venv_identity .venv/bin/python >"$MADE_FOR"
    fi
    say "installing the locked packages (the first time: a minute or two)"
    # Byte code now, not at the first import: the first demo would be slower by ten seconds, and with
    # PYTHONDONTWRITEBYTECODE in the environment every run would.
    uv pip sync --quiet --compile-bytecode --python .venv/bin/python --require-hashes --no-build requirements.lock ||
        fail "uv could not install the locked packages (above). Check the network, the proxy and the index settings"
    # hatchling is in the lock, so that this builds without fetching anything.
    uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
    provide_libraries
    inputs_digest >"$STAMP"
}

provide_prometheus() {
    local program
    # Debian 13 has promtool in a package of its own; before, it was in Prometheus's.
    for program in prometheus promtool; do
        if ! has "$program"; then
            say "fetching $program from the system's packages, without installing it"
            take_from_system_package "$program" 'usr/bin/*' .tools/prometheus/usr/bin ||
                fail "$program is needed, and apt can't fetch it: sudo apt-get install prometheus" \
                    "(elsewhere: put prometheus and promtool on PATH)"
        fi
        runs "$program"
    done
}

provide_alertmanager() {
    local package=prometheus-alertmanager
    if ! alertmanager_is_ready; then
        say "fetching alertmanager from the system's packages, without installing it"
        take_from_system_package "$package" "usr/bin/$package" .tools/prometheus/usr/bin ||
            fail "alertmanager is needed, and apt can't fetch it: sudo apt-get install $package" \
                "(elsewhere: put alertmanager on PATH)"
    fi
    if has alertmanager; then runs alertmanager; else runs "$package"; fi
    # Debian's build reads its templates from there and nowhere else.
    [[ -e /usr/share/prometheus/alertmanager/default.tmpl ]] || has alertmanager ||
        say "labs about alerts (L03) and their tests need Alertmanager's templates: sudo apt-get install $package"
}

runs() {
    "$1" --version >/dev/null 2>&1 ||
        fail "$(command -v "$1") doesn't run: see what '$1 --version' says, and repair or remove it"
}

initialise_instance() {
    say "initialising Dagster's instance in .dagster"
    mkdir -p .dagster
    cp deploy/local/dagster.yaml .dagster/dagster.yaml
    .venv/bin/python scripts/initialise_instance.py
    touch "$INITIALISED"
}

if all_is_ready; then
    [[ ${1:-} == --quiet ]] || say "everything is in place"
    exit 0
fi

# Two set-ups at once would remove each other's files, and two first openings of an instance break it.
mkdir -p .tools "$HOME"
exec {lock}>>.tools/setup.lock
if ! flock --nonblock "$lock"; then
    say "another set-up is at work here; waiting for it"
    flock "$lock"
fi
packages_are_ready || install_packages
provide_prometheus
provide_alertmanager
instance_is_ready || initialise_instance
say "done in $SECONDS s"
