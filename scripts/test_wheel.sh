#!/usr/bin/env bash
# Installs a wheel into a fresh environment and runs its programs in a folder that is no checkout.
#
#   bash scripts/test_wheel.sh dist/lgm_training-*.whl
#
# PYTHON chooses the interpreter (default python3, 3.10 or newer).
set -euo pipefail
if [ $# -ne 1 ] || [ ! -f "$1" ]; then
    echo "error: give one wheel: bash scripts/test_wheel.sh dist/lgm_training-*.whl" >&2
    exit 2
fi
wheel="$(realpath "$1")"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"
export PATH="$folder/venv/bin:$PATH"
unset PYTHONPATH
cd "$folder"

for program in lgm-train lgm-evaluate lgm-infer lgm-data lgm-mesh lgm-view lgm-doctor; do
    "$program" --help >help.txt 2>&1 || {
        echo "error: $program --help failed" >&2
        cat help.txt >&2
        exit 1
    }
done
# Two steps of a micro network, its evaluation, and the bundled weights on a bundled object.
small=(data=quickstart trainer=cpu data.num_workers=0 data.probe_objects=1)
lgm-train experiment=quickstart debug=short "${small[@]}" run_dir=run
lgm-evaluate ckpt=run/checkpoints/last.ckpt "${small[@]}" data.split=val data.max_test_objects=1 \
    callbacks.measure.lpips=null run_dir=measured
lgm-evaluate ckpt=mini "${small[@]}" data.split=val data.max_test_objects=1 callbacks.measure.lpips=null run_dir=mini
for file in run/metrics.csv measured/metrics.json mini/metrics.json mini/report.html; do
    [ -s "$file" ] || {
        echo "error: no $file" >&2
        exit 1
    }
done
echo "$(basename "$wheel"): installed, trained, evaluated"
