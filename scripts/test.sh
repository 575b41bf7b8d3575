#!/usr/bin/env bash
# Style (ruff) and types (mypy), then the tests. Makes .venv first where there is none.
#
#   bash scripts/test.sh [pytest arguments]          the fast ones: 12 minutes at most on two cores
#   bash scripts/test.sh --all [pytest arguments]    the slow ones too
#
# Whatever is skipped is named at the end, with its reason, and then the seconds of each area with its budget on
# two cores (tests/budget.py). Files are shared out to TEST_PROCESSES processes (2).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare_environment "render,objaverse,logging,docs,test"
prepare_opengl

began=$SECONDS
.venv/bin/python -m ruff check --quiet .
.venv/bin/python -m ruff format --quiet --check . || {
    echo "error: not formatted; .venv/bin/python -m ruff format ." >&2
    exit 1
}
.venv/bin/python -m mypy
export LINT_SECONDS=$((SECONDS - began)) # at least 0: pytest prints no budget without

select=(-m "not slow")
if [ "${1:-}" = "--all" ]; then
    prepare_app
    select=()
    shift
fi
exec .venv/bin/python -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile "${select[@]}" "$@"
