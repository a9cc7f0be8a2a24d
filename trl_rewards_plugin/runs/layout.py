"""Every file name of a run folder, once; and which of them show that a run lies there.

Leaves out: what the files hold (`read.py`, `record.py`), and the model's own, which transformers and peft name.
"""

import re
import shutil
from pathlib import Path

from trl_rewards_plugin.atomic import TEMPORARY
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.places import holds_model

# What the recipe leaves at the end (`recipes/seq2seq_ppo.py`); report and card read it by `read.py`.
METRICS = "metrics.json"
CONFIG = "config.yaml"
REWARDS = {"reward": "run_reward.yaml", "held_out_reward": "run_held_out_reward.yaml"}  # copies of given reward files
HELD_OUT = "completions.parquet"
REWARD_CURVE, REWARD_KL = "reward_curve.png", "reward_kl.png"
CARD = "README.md"
EVAL_RESULTS = ".eval_results/trl_rewards_plugin.yaml"
FINISHED_RUN = (CONFIG, METRICS, HELD_OUT)  # a folder with these holds a finished run of the recipe
# What grows while it trains; each of the folders has one parquet file of completions a step, or an evaluation.
LOG = "log.jsonl"
ROLLOUTS, EVALUATIONS = "completions", "eval_completions"
# What `trl-rewards evaluate` leaves in a folder of its own, and what `trl-rewards report` adds.
EVALUATION, OUTPUTS = "evaluation.json", "outputs.parquet"
REPORT = "report.html"
# Checkpoints.
TRAINER_STATE = "trainer_state.json"
RUN_STATE = "ppo_state.json"  # written last: a checkpoint that has it is whole
VALUE_HEAD = "value_head.safetensors"
UNFINISHED = "_unfinished"  # folder of checkpoints that are being saved or removed
CHECKPOINTS = "checkpoint-*"
# What no reader and no upload takes for a file of the run.
LOCK = ".writer.lock"


def checkpoint_name(step: int) -> str:
    """Folder of the checkpoint after `step` rollouts."""
    return f"checkpoint-{step}"


def checkpoint_step(name: str) -> int | None:
    """12 of "checkpoint-12"; None for any other name."""
    found = re.fullmatch(r"checkpoint-(\d+)", name)
    return int(found[1]) if found else None


def completions_name(step: int) -> str:
    """File of one step in `ROLLOUTS` or `EVALUATIONS`."""
    return f"completions_{step:05d}.parquet"


def is_finished_run(folder: Path) -> bool:
    """Whether `folder` holds a finished run of the recipe."""
    return all((folder / name).is_file() for name in FINISHED_RUN)


def finish_first(folder: Path, otherwise: str) -> str:
    """What to do where a finished run is wanted: resume it if `folder` holds one that has not finished."""
    unfinished = holds_run(folder) and not (folder / METRICS).is_file()
    return "this run has not finished: resume it (docs/how-to/resume.md)" if unfinished else otherwise


def check_saved_model(folder: Path) -> None:
    """Refuses a folder that holds no saved model or adapter; what is no folder may be on the Hub."""
    if folder.is_dir() and not holds_model(folder):
        step = finish_first(folder, "pass the folder that save_pretrained() wrote, or a Hub id")
        raise InputError("a folder with a model (config.json and weights)", f"{folder} without config.json", step)


def is_housekeeping(name: str) -> bool:
    """Whether a file of this name is a lock, or was left half-written by a process that was killed."""
    return name.endswith((LOCK, TEMPORARY))


def holds_run(folder: Path) -> list[str]:
    """Names in `folder` that only a run leaves there: its metrics, configuration, log, checkpoints and completions."""
    own = (METRICS, CONFIG, *REWARDS.values(), LOG, ROLLOUTS, EVALUATIONS)
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if name in own or checkpoint_step(name) is not None]


def refuse_run(folder: Path, *, overwrite: bool) -> None:
    """Refuses a folder that is a file, or that holds a run which `overwrite` does not give up."""
    if folder.exists() and not folder.is_dir():
        raise InputError("a folder as output_dir", f"the file {folder}", "choose another output_dir")
    found = holds_run(folder)
    if found and not overwrite:
        step = "choose another output_dir, resume with resume_from_checkpoint, or give up what is there with overwrite"
        raise InputError("an output folder that holds no run yet", f"{folder} with {', '.join(found[:4])}", step)


def clear_run(folder: Path) -> None:
    """Removes what an earlier run left that a later resume could mistake for its own; other files stay."""
    for name in holds_run(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
