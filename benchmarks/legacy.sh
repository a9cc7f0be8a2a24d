#!/usr/bin/env bash
# Makes an environment with an old TRL for the benchmarks to compare with: 0.11.4, the last whose PPOTrainer took
# encoder-decoders (the default), or 0.28.0, the last whose DPOTrainer did.
# Usage: bash benchmarks/legacy.sh FOLDER [0.11.4|0.28.0]
set -euo pipefail
folder=${1:?name the folder of the environment}
trl=${2:-0.11.4}
case "$trl" in
    0.11.4) others=(transformers==4.46.3 accelerate==1.0.1 rich) ;;
    0.28.0) others=(transformers==4.57.6 accelerate==1.15.0) ;;
    *) echo "expected 0.11.4 or 0.28.0, found $trl" >&2; exit 2 ;;
esac
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet torch==2.13.0 "trl==$trl" "${others[@]}"
"$folder/bin/python" -c "import sys, trl; assert trl.__version__ == sys.argv[1]" "$trl"
