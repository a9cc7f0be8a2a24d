#!/usr/bin/env bash
# Makes an environment with the last TRL whose PPOTrainer took encoder-decoders, for the benchmarks to compare with.
# Usage: bash benchmarks/legacy.sh FOLDER
set -euo pipefail
folder=${1:?name the folder of the environment}
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet torch==2.13.0 trl==0.11.4 transformers==4.46.3 accelerate==1.0.1 rich
"$folder/bin/python" -c "import trl; assert trl.__version__ == '0.11.4'"
