"""Executes the code blocks of all pages in one process, as a reader would, and prints what came of each as JSON.

    HF_HOME=... HF_HUB_OFFLINE=1 python -m tests.run_documentation FOLDER

The blocks of a page share their names and a folder of a reader's files (`make_reader`). What would take minutes is cut
short: a training stops after one step, and `trl-rewards train` runs as a dry run, which loads everything, answers and
scores four prompts. The models of the Hub are tiny stand-ins under the real names (`make_home`), and so is the preset
"tiny" of `trl-rewards train`. Leaves out: judging what comes out (test_docs.py).
"""

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from types import MappingProxyType

from tests.documentation import PAGES, ROOT, Block, blocks_of
from tests.recipes.tiny_run import SHORT, sentences
from tests.rewards.tiny_causal import tiny_causal
from tests.stand_ins import article_home, snapshot
from tests.tiny_models import tiny_bart, tiny_classifier


def make_home(folder: Path) -> Path:
    """An HF_HOME with a stand-in for every model and data set that the pages name."""
    home = article_home(folder)
    tiny_bart(snapshot(home, "facebook/bart-base"))
    tiny_causal(snapshot(home, "Qwen/Qwen2.5-0.5B-Instruct"))
    return home


def make_reader(folder: Path) -> Path:
    """A reader's folder: prompts, texts, outputs, a judge, a reward file, settings, and three runs."""
    from trl_rewards_plugin import Seq2SeqPPO
    from trl_rewards_plugin.recipes.run_rules import lora_config

    texts = [{"text": text} for text in sentences(16)]
    rows = [{"prompt": text, "output": text, "topic": "cat", "reference": text} for text in sentences(16)]
    new, accepted = ([{"output": text[:end]} for text in sentences(16)] for end in (-1, -2))
    files = {"prompts": rows, "outputs": rows[:4], "texts": texts, "new": new, "accepted": accepted}
    for name, kept in ((f"{stem}.jsonl", kept) for stem, kept in files.items()):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    lines = ["text,label", *(f"{row['prompt']},{('bad', 'good')[place % 2]}" for place, row in enumerate(5 * rows))]
    (folder / "my.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tiny_classifier(folder / "judge", ("bad", "good"))
    reward = "rewards:\n  - {model: judge, label: good, name: mine}\n"
    (folder / "my_reward.yaml").write_text(reward, encoding="utf-8")
    (folder / "run.yaml").write_text("preset: article\nresponse_length: 8\n", encoding="utf-8")
    settings = {**SHORT, "save_steps": 1, "response_length": 4, "report_to": "none"}
    for name, adapter in (("tiny-seed0", None), ("lora", lora_config(4, 8, None))):
        settings["output_dir"] = str(folder / "runs" / name)
        Seq2SeqPPO.from_preset("article", peft_config=adapter, **settings).run()
    stopped = shutil.ignore_patterns("metrics.json", "*.parquet", "README.md")
    shutil.copytree(folder / "runs" / "tiny-seed0", folder / "runs" / "stopped", ignore=stopped)
    return folder


def cut_trainings_short() -> None:
    """Every trainer of this process stops after one step; `trl-rewards train` takes stand-ins for "tiny"."""
    from transformers import Trainer
    from trl import GRPOConfig, RLOOConfig

    from trl_rewards_plugin.recipes import run_presets as presets

    train = Trainer.train

    def one_step(self, *args, **kwargs):
        self.args.max_steps = 1
        return train(self, *args, **kwargs)

    Trainer.train = one_step
    for config in (GRPOConfig, RLOOConfig):  # bf16 unless told otherwise, which a CPU has not
        config.__init__ = functools.partialmethod(config.__init__, bf16=False)
    article = presets.PRESETS["article"]
    config = {**article.config, "response_length": 8}
    tiny = dataclasses.replace(article, name="tiny", config=config)
    presets.PRESETS = MappingProxyType({**presets.PRESETS, "tiny": tiny})


def run_command(line: str, expected: int = 0) -> None:
    """One command of a bash block.

    Raises:
        ValueError: it is not `trl-rewards ...`.
        RuntimeError: it ends with another exit code than the expected one.
    """
    from trl_rewards_plugin.cli.main import main

    program, *arguments = shlex.split(line, comments=True)
    if program != "trl-rewards":
        raise ValueError(f"mark the block with how it is tested: {line}")
    if arguments[0] == "train":
        arguments += ["--dry_run", "--use_cpu"]
    try:
        code = main(arguments)
    except SystemExit as end:  # of --help
        code = end.code or 0
    if code != expected:
        raise RuntimeError(f"exit code {code}, not {expected}: {line}")


def run_block(block: Block, names: dict) -> None:
    """Executes one block in the working directory.

    Raises:
        Exception: whatever the block raises.
    """
    if block.language == "python":
        exec(compile(block.code, block.name, "exec"), names)
    elif block.language == "bash":
        for line in block.code.replace("\\\n", " ").splitlines():
            if line.strip():
                run_command(line, 2 if block.mark == "refused" else 0)
    elif block.language == "yaml":
        from trl_rewards_plugin import MultiClassifierReward

        Path("block.yaml").write_text(block.code, encoding="utf-8")
        MultiClassifierReward.from_preset("block.yaml")
    elif block.language == "diff":
        patch = ["git", "apply", "--check", "--recount", "-C1", "-"]
        subprocess.run(patch, cwd=ROOT, input=block.code, text=True, check=True, capture_output=True)
    else:
        raise ValueError(f"a block in {block.language or 'no language'}: name one of python, bash, yaml, diff, text")


def run_pages(folder: Path) -> dict[str, dict[str, str]]:
    """Block name -> its "output" and, where it failed, "error"."""
    cut_trainings_short()
    reader = make_reader(folder / "reader")
    found = {}
    for number, page in enumerate(PAGES):
        place = shutil.copytree(reader, folder / str(number))
        os.chdir(place)
        # A module, so that functions of the pages can be pickled and named.
        module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(f"page{number}", None))
        sys.modules[module.__name__] = module
        for block in filter(lambda block: block.executed, blocks_of(page)):
            output = io.StringIO()
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                try:
                    run_block(block, module.__dict__)
                    error = ""
                except BaseException:
                    error = traceback.format_exc()
            found[block.name] = {"output": output.getvalue(), "error": error}
    return found


if __name__ == "__main__":
    import importlib.machinery
    import importlib.util

    results_file = sys.stdout
    target = Path(sys.argv[1])
    with contextlib.redirect_stdout(sys.stderr):
        results = run_pages(target)
    json.dump(results, results_file)
