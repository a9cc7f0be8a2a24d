#!/usr/bin/env bash
# Everything that is to be known on a GPU, in at most 6 minutes on an H100, as one Markdown table.
#
#   bash benchmarks/gpu.sh [--smoke] [--site FOLDER] [--legacy FOLDER] [--out FOLDER]
#
# --smoke    all of it with tiny models on the CPU, for a few seconds: it shows that everything runs.
# --site     packages that the machine lacks, unpacked into one folder (none where the environment has all).
# --legacy   for the article's loop: an environment made by legacy.sh, or a folder of unpacked packages. Without it
#            the loop is left out.
# --out      where table.md and, of each part, its log and JSON go (gpu_results).
# Also read: PYTHON (python3), LIMIT (seconds for all: 355).
#
# It needs no network. Where the machine has none either for pip, make the two folders elsewhere, for its Python, beside
# the torch that it has (2.11 and later were tried):
#
#   get() { python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#       $(printf -- ' --platform manylinux_%s_x86_64' 2_28 2_27 2_17) --platform manylinux2014_x86_64 -d "$1-wheels" "${@:2}"; }
#   get site transformers==5.23.0 trl==1.16.0 accelerate==1.15.0 datasets==5.2.0 peft==0.21.2 evaluate==0.4.6 \
#       tokenizers==0.23.2 huggingface_hub==1.33.0 multiprocess==0.70.19 dill==0.4.1 nltk==3.10.4 defusedxml six \
#       pytest pytest-xdist hypothesis
#   python3 -m pip wheel --no-deps rouge_score==0.1.2 -w site-wheels  # comes as source alone
#   get legacy trl==0.11.4 transformers==4.46.3 accelerate==1.0.1 tokenizers==0.20.3 huggingface_hub==0.36.0 \
#       datasets==4.4.1 multiprocess==0.70.18 dill==0.4.0 tyro docstring-parser shtab typeguard
#   for name in site legacy; do for wheel in $name-wheels/*.whl; do unzip -qo "$wheel" -d $name; done; done
#
# and leave out of `site` what the machine has in these versions or later. Beside these they need what comes with torch
# and with them: numpy, pyarrow, pandas, matplotlib, rich, jinja2, pyyaml, safetensors, regex, tqdm, fsspec, xxhash,
# aiohttp, requests, httpx.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
smoke= site= legacy= out=gpu_results
while (($#)); do
    case $1 in
        --smoke) smoke=1; shift ;;
        --site) site=$(realpath "$2"); shift 2 ;;
        --legacy) legacy=$(realpath "$2"); shift 2 ;;
        --out) out=$2; shift 2 ;;
        *) echo "expected --smoke, --site, --legacy or --out, found $1" >&2; exit 2 ;;
    esac
done
mkdir -p "$out"
out=$(realpath "$out")
rm -f "$out"/*.json "$out"/*.log "$out"/*.status "$out/table.md"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=$(command -v "${PYTHON:-python3}")
export PYTHONPATH=${site:+$site:}$root${PYTHONPATH:+:$PYTHONPATH}
export HF_HOME=$work/hf HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TRL_EXPERIMENTAL_SILENCE=1 PYTHONUNBUFFERED=1
limit=${LIMIT:-${smoke:+700}}
limit=${limit:-355}

# A folder of packages becomes what ppo_episode.py asks for: a folder with bin/python.
if [[ $legacy && ! -x $legacy/bin/python ]]; then
    mkdir -p "$work/legacy/bin"
    printf '#!/bin/bash\nexport PYTHONPATH=%q\nexec %q "$@"\n' "$here/without_torchvision:$legacy" "$python" \
        >"$work/legacy/bin/python"
    chmod +x "$work/legacy/bin/python"
    legacy=$work/legacy
fi

# part NAME SECONDS COMMAND: its output goes to NAME.log, exit status and seconds to NAME.status; what comes next runs
# whatever becomes of it.
part() {
    local name=$1 seconds=$2 began=$SECONDS left=$((limit - SECONDS)) status=0
    shift 2
    ((seconds < left)) || seconds=$left
    if ((seconds < 5)); then
        echo "124 0" >"$out/$name.status"
        echo "no time was left" >"$out/$name.log"
        return
    fi
    (cd "$root" && timeout -k 5 "$seconds" "$@") >"$out/$name.log" 2>&1 || status=$?
    echo "$status $((SECONDS - began))" >"$out/$name.status"
    echo "$name: exit status $status, $((SECONDS - began)) s"
    "$python" "$here/gpu_table.py" "$out" >"$out/table.md"
}

bench() { part "$1" "$2" "$python" "$here/$3" "${@:4}"; }
if [[ $smoke ]]; then
    export BENCHMARKS_SMOKE=1 CUDA_VISIBLE_DEVICES=
    bench profile 150 gpu_profile.py --output "$out/profile.json"
    bench article_run 150 article_run.py --prompts 32 --epochs 1 --output "$out/article_run.json"
    bench ppo_episode 150 ppo_episode.py --batch 2 --mini 1 --repeats 1 ${legacy:+--legacy "$legacy"} --out "$out"
    bench generation 150 generation.py --batches 2 --repeats 1 --out "$out"
    bench reward_throughput 150 reward_throughput.py --texts 4 --layers 1 --repeats 1 --no-steps \
        --output "$out/reward_throughput.json"
else
    # What is wanted most comes first, should time run out.
    bench article_run 110 article_run.py --gpu --output "$out/article_run.json"
    bench ppo_episode 90 ppo_episode.py --gpu --batch 8 --mini 4 ${legacy:+--legacy "$legacy"} --out "$out"
    bench profile 45 gpu_profile.py --gpu --output "$out/profile.json"
    bench generation 60 generation.py --device cuda --batches 8 64 --dtypes float32 bfloat16 --repeats 3 --out "$out"
    bench profile_eager 50 gpu_profile.py --gpu --no_cuda_graphs --output "$out/profile_eager.json"
    bench reward_throughput 45 reward_throughput.py --device cuda --repeats 2 --no-steps \
        --output "$out/reward_throughput.json"
    part tests 110 "$python" -m pytest -m gpu -n 6 -q --tb=short -o addopts=--strict-markers -p no:cacheprovider \
        -p no:benchmark tests/gpu
fi
cat "$out/table.md"
# Failed where any part did, so that CI sees it.
! grep -qv '^0 ' "$out"/*.status --no-filename
