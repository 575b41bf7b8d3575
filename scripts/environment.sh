# Sourced by the other scripts: makes and fills .venv in the repository, once.
#
#   prepare_environment EXTRAS    e.g. "" or "render,logging,test"
#
# PYTHON chooses the interpreter (default python3, 3.10 or newer).

prepare_environment() {
    local extras="$1" python="${PYTHON:-python3}" stamp wanted target="."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: $python is older than Python 3.10; set PYTHON=<a newer one>" >&2
        return 1
    }
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        rm -rf .venv # a half-made one, of a Python without ensurepip
        "$python" -m venv .venv || {
            echo "error: $python has no venv module; install it (Debian: apt-get install python3-venv)" >&2
            return 1
        }
    fi
    stamp=".venv/installed-${extras//,/-}"
    wanted="$(cksum <pyproject.toml)"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        [ -n "$extras" ] && target=".[$extras]"
        echo "installing into .venv (a few minutes the first time) ..."
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -e "$target"
        # Only for its linear weights: its dependency torchvision would break `import lightning`
        # beside a CPU build of torch.
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "lpips>=0.1.4"
        echo "$wanted" >"$stamp"
    fi
}

# The app's gradio, for the slow tests: a browser asks a real server. Its dependencies hold no torchvision.
prepare_app() {
    .venv/bin/python -c 'import sys; from importlib.util import find_spec as f; sys.exit(f("gradio") is None)' && return 0
    echo "installing the extra app into .venv ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[app]" ||
        echo "note: gradio could not be installed; tests of the app will be skipped"
}

# Software OpenGL for rendering meshes, where this machine has none and lets us install it.
prepare_opengl() {
    ldconfig -p 2>/dev/null | grep -q libEGL.so.1 && return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get update && apt-get install -y --no-install-recommends libegl1 libgl1-mesa-dri; } \
            >/dev/null 2>&1 || echo "note: libegl1 could not be installed; tests that draw meshes will be skipped"
    else
        echo "note: no libEGL here (Debian: apt-get install libegl1 libgl1-mesa-dri); tests that draw meshes will be skipped"
    fi
}
