#!/usr/bin/env bash
# From nothing to a trained and measured model, on a CPU, in twelve to fifteen minutes:
# makes .venv, trains experiment=quickstart on the bundled objects from random weights, and evaluates the
# checkpoint on objects that it has not seen; then the weights that come along, on the same objects.
#
#   bash scripts/quickstart.sh [key=value …]     further arguments go to train.py
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare_environment ""

run="runs/quickstart/$(date +%Y-%m-%d_%H-%M-%S)"
.venv/bin/python train.py experiment=quickstart run_dir="$run" "$@"
.venv/bin/python evaluate.py ckpt="$run/checkpoints/best.ckpt" \
    data=quickstart data.split=val trainer=cpu run_dir="$run/evaluation" \
    callbacks.measure.lpips.download=false # half a gigabyte of weights: LPIPS only where they are here
echo
echo "And so does mini, of the weights that come along (lgm/assets/weights), which has not seen them either:"
.venv/bin/python evaluate.py ckpt=mini data=quickstart data.split=val trainer=cpu run_dir="$run/mini" \
    callbacks.measure.lpips.download=false callbacks.measure.untrained_objects=0

echo
echo "What it looks like (input | target | prediction, objects that were not trained on):"
echo "  $PWD/$run/evaluation/report.html"
echo "By mini's weights, at 128²:        $PWD/$run/mini/report.html"
echo "Images from training:            $PWD/$run/images/"
echo "Gaussians for any 3DGS viewer:     $PWD/$run/evaluation/objects/<object>/gaussians.ply"
echo "Numbers:                           $PWD/$run/evaluation/metrics.json"
