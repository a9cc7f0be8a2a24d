"""The real command on bad input: an error in three parts, a traceback never."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import yaml
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

# What the commands import first, once for all the children below.
import trl_rewards_plugin.recipes.seq2seq_ppo
import trl_rewards_plugin.scoring.score_job  # noqa: F401
from trl_rewards_plugin.cli.config_source import Declared, declared_settings, known_trackers
from trl_rewards_plugin.cli.main import main
from trl_rewards_plugin.cli.train import build_recipe, check_quickly
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.config_rules import Weights
from trl_rewards_plugin.rewards.files.dotted_paths import check_name
from trl_rewards_plugin.rewards.files.file_content import preset_content

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def in_a_process_of_its_own(*argv, seconds=120):
    """Exit code and output of `trl-rewards` in a forked child, where it may crash as it likes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
        code = 99
        try:
            for descriptor in (1, 2):
                os.dup2(writer, descriptor)
            sys.stdout = os.fdopen(1, "w", buffering=1)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            code = main([str(argument) for argument in argv])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as stream:
        output = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output


def command(*argv):
    """Exit code and output of a `trl-rewards` that changes nothing for others: in this process, which is faster."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            code = main([str(argument) for argument in argv])
        except BaseException:
            code = 99
            traceback.print_exc()
    return code, output.getvalue()


ONE = "rewards:\n- {asset: acceptability-judge, label: acceptable, name: one"
FILES = {
    "news.csv": "text,topic\nA cat.,cats\n",
    "scored.csv": "prompt,completion,total\nA,a cat.,1\n",
    "empty.csv": "",
    "header.csv": "text\n",
    "latin.csv": "text\ncaf\xe9\n".encode("latin-1"),
    "number.json": "3",
    "scalar.yaml": "reward_weights: {a: 1.0}\n",
    "news.xlsx": "",
    "folder/news.csv": "text\nA cat.\n",
    "key.yaml": "lerning_rate: 1.0e-5\n",
    "word.yaml": "learning_rate: fast\n",
    "column.yaml": "dataset: news.csv\ntext_column: txt\n",
    "reward.yaml": "reward: r_lable.yaml\n",
    "r_lable.yaml": "rewards:\n- {asset: acceptability-judge, lable: acceptable}\n",
    "r_none.yaml": "rewards:\n- {asset: acceptability-judge}\n",
    "r_asset.yaml": "rewards:\n- {asset: acceptabilty-judge, label: acceptable}\n",
    "syntax.yaml": "seed: 3\nmodel: a: b\n",
    "r_syntax.yaml": "rewards:\n- {function: length\n- {function: repetition}\n",
    "r_top.yaml": "reward:\n- {function: length}\n",
    "r_weights.yaml": f"weights: [1]\n{ONE}}}\n",
    "r_high.yaml": f"{ONE}, weight: high}}\n",
    "r_nan.yaml": f"{ONE}, weight: .nan}}\n",
    "r_zero.yaml": f"{ONE}, weight: 0}}\n",
    "r_clip.yaml": f"{ONE}, clip: 3}}\n",
    "r_tab.yaml": "rewards:\n\t- {function: length}\n",
    "r_latin.yaml": "rewards:\n- {function: length, name: caf\xe9}\n".encode("latin-1"),
    "r_function.yaml": "rewards:\n- {function: lenght}\n",
    "r_file.yaml": "rewards:\n- {function: 'my.py:good'}\n",
    "r_word.yaml": "rewards:\n- {function: length, min_lenght: 3}\n",
    "r_twice.yaml": f"{ONE}}}\n- {{function: length, name: one}}\n",
    "r_self.yaml": "rewards:\n- {combination: r_self.yaml}\n",
    "r_part.yaml": "rewards:\n- {combination: r_nan.yaml}\n",
    "r_url.yaml": "rewards:\n- {function: remote}\n",
    "r_http.yaml": "rewards:\n- {function: remote, url: 'localhost:8000'}\n",
    "r_label.yaml": "rewards:\n- {asset: acceptability-judge, label: aceptable}\n",
    "r_folder.yaml": "rewards:\n- {model: judge, label: aceptable}\n",
    "few.txt": "A dog.\n" * 71,
    "two.txt": "A cat.\n" * 2,
    "data/gpt/config.json": '{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}',
    "judge/config.json": '{"id2label": {"0": "unacceptable", "1": "acceptable"}}',
    "judge/tokenizer.json": "",
    "r_unfinished.yaml": "rewards:\n- {model: folder, label: good}\n",
    "judge/tokenizer.model": "",
    "merged/config.json": "{}",
    "r_long.yaml": f"{ONE}, max_length: 1000}}\n",
    "r_type.yaml": f"{ONE}, score_type: logits}}\n",
    "r_batch.yaml": f"{ONE}, batch_size: 0}}\n",
    "r_space.yaml": "rewards:\n- {asset: acceptability-judge, label: acceptable, name: my judge}\n",
    "r_inner.yaml": "rewards:\n- {model: judge/config.json, label: acceptable}\n",
    "r_window.yaml": "rewards:\n- {function: length, min_length: 60, max_length: 20}\n",
    "r_retry.yaml": "rewards:\n- {function: remote, url: 'http://localhost:8000', retries: many}\n",
    "yes.yaml": "whiten_rewards: maybe\n",
    "list.yaml": "learning_rate: [1, 2]\n",
    "range.yaml": "learning_rate: -1\n",
    "earlier/metrics.json": "{}",
    "three.yaml": "reward: 3\n",
    "s_key.yaml": "rewrd: tiny\n",
    "e_key.yaml": "metrcs: [tiny]\n",
    "own.py": "def good(completions, **kwargs):\n    return [0.0] * len(completions)\n",
    "r_name.yaml": "rewards:\n- {function: 'own.py:goood'}\n",
    "r_gate.yaml": f"{ONE}, only_if: {{twoo: 0}}}}\n- {{function: length, name: two}}\n",
    "r_bundled.yaml": "rewards:\n- {model: 'bundled:acceptability-judge', label: LABEL_1}\n",
    "r_typo.yaml": "rewards:\n- {model: 'bundled:acceptabilty-judge', label: acceptable}\n",
    "r_path.yaml": "rewards:\n- {model: ./judgee, label: acceptable}\n",
    "r_unnamed.yaml": "rewards:\n- {asset: sentiment-judge, label: neutral}\n"
    "- {function: length, only_if: {sentiment-judge_neutrl: 0}}\n",
    "r_itself.yaml": "rewards:\n- {model: a/b, label: c}\n- {function: length, only_if: {length: 0}}\n",
    "r_scalar.yaml": f"{ONE}}}\n- {{function: length, only_if: one}}\n",
    "gaps.csv": "text,n\na,1\n,2\n,3\n",
    "excel.csv": "text,n\na,1\n".encode("utf-8-sig"),
    "r_whole.yaml": "rewards:\n- {function: own.py}\n",
    "empty.yaml": "",
    "short/config.json": '{"is_encoder_decoder": true, "max_position_embeddings": 512}',
    "off.yaml": "save_strategy: no\n",
    "null.yaml": "num_ppo_epochs: null\n",
    "together.yaml": "num_mini_batches: 3\n",
    "outputs.jsonl": '{"output": "a"}\n',
    "pair.csv": "prompt,output,ref\na,b,c\nd,e,f\n",
    "turned.csv": "prompt,output,ref\nd,e,f\na,b,c\n",
    "asks.csv": "prompt,ref\na,c\nd,\n",
    "hole.csv": "prompt,output\na,b\nd,\n",
    "scored.jsonl": '{"text": "A dog.", "topic": "dogs", "total": 1, "acceptability": 1, "neutrality": 1}\n',
    "length.jsonl": '{"text": "A cat.", "topic": "cats", "total": 1, "length": 1}\n',
    "evaluated/evaluation.json": "{}",
    "stopped/config.yaml": "seed: 0\n",
    "ten.yaml": "rows: ten\n",
    "kwargs.yaml": "metric_kwargs: 3\n",
    "polite/config.yaml": "model: me/mine\nmade_of: {rewards: [{name: politeness, weight: 1}]}\n",
    "polite/checkpoint-3/weights": "",
}
# Line -> what the message says.
FILE_LINES = {
    "train --dataset news.csv": "--text_column text",
    "train --dataset news.csv --text_column txt": "did you mean 'text'?",
    "train --dataset news.csv --text_column text --eval_dataset folder/../news.csv": "give other rows",
    "train --dataset news.cvs": "did you mean 'news.csv'?",
    "train --dataset empty.csv": "an empty file",
    "train --dataset header.csv": "only a header",
    "train --dataset latin.csv": "iconv",
    "train --dataset number.json": "one JSON object per line",
    "train --dataset news.xlsx": "rename or convert the file",
    "train --dataset folder": "give one of its files: news.csv",
    "train --config key.yaml": "did you mean 'learning_rate'?",
    "train --config r_none.yaml": "a reward file goes to --reward: r_none.yaml",
    "score --config r_none.yaml": "a reward file goes to --reward: r_none.yaml",
    "evaluate --config r_none.yaml": "a reward file goes to --metrics: r_none.yaml",
    "train --lerning_rate 1 --klcoef 2": "did you mean --learning_rate? / --klcoef: did you mean",
    "train --config word.yaml": "learning_rate as a number",
    "train --config column.yaml": "did you mean 'text'?",
    "train --config syntax.yaml": "invalid YAML in line 2, column 9: mapping values are not allowed here\n",
    "train --reward r_syntax.yaml": "invalid YAML in line 3, column 3: expected ',' or '}'",
    "train --config reward.yaml": "did you mean 'label'?",
    "train --learning_rate fast": "learning_rate as a number, such as 3e-06",
    "train --reward r_whole.yaml": "name a function of it: own.py:good",
    "train --num_train_epochs many": "num_train_epochs as a number, such as 3\n",
    "train --config empty.yaml": "an empty file",
    "train --reward empty.yaml": "an empty file",
    "train --model short --response_length 4000": "response_length of at most 512, the positions of short",
    "train --max_steps 1.5": "max_steps as a whole number",
    "train --config scalar.yaml": "reward_weights as a list",
    "train --reward_weights 1 none": "reward_weights as a list of values",
    "train --resume_from_checkpoint true --output_dir nowhere": "a complete checkpoint",
    "train --learning_rate": "a value after --learning_rate",
    "train --held_out_reward r_lable.yaml": "did you mean 'label'?",
    "train --reward r_none.yaml": "label in r_none.yaml, rewards[0]",
    "train --reward r_asset.yaml": "did you mean 'acceptability-judge'?",
    "train --reward r_top.yaml": "did you mean 'rewards'?",
    "train --reward r_weights.yaml": "write weight: into the entry of its reward",
    "train --reward r_high.yaml": "a finite number as the weight of 'r_high.yaml, rewards[0]'",
    "score --reward r_nan.yaml news.csv": "a finite number as the weight of 'r_nan.yaml, rewards[0]'",
    "score --reward r_zero.yaml news.csv": "a weight other than 0",
    "serve r_clip.yaml": "clip of 'r_clip.yaml, rewards[0]'",
    "score scored.csv --text_column completion --reward tiny": "table[['prompt', 'completion']]",
    "serve r_tab.yaml": "spaces",
    "serve tiny --token_env NOT_SET_ANYWHERE": "a token in the environment variable NOT_SET_ANYWHERE",
    "serve r_latin.yaml": "UTF-8",
    "evaluate news.csv --metrics r_function.yaml": "did you mean 'length'?",
    "evaluate news.csv --metrics r_file.yaml": "beside the reward file or in the current folder",
    "train --reward r_word.yaml": "did you mean 'min_length'?",
    "train --reward r_twice.yaml": "different names",
    "train --reward r_self.yaml": "no part of itself",
    "train --reward r_part.yaml": "a finite number as the weight of 'r_nan.yaml, rewards[0]'",
    "train --reward r_url.yaml": "url in r_url.yaml",
    "train --reward r_http.yaml": "the URL of a reward server",
    "train --reward r_label.yaml": "did you mean 'acceptable'?",
    "score news.csv --reward r_folder.yaml": "did you mean 'acceptable'?",
    "train --reward r_unfinished.yaml": "folder without config.json",
    "serve r_long.yaml": "max_length of at most 128",
    "train --reward r_type.yaml": "did you mean 'logit'?",
    "train --held_out_reward r_batch.yaml": "batch_size as a positive whole number",
    "train --reward r_space.yaml": "my_judge",
    "train --reward r_window.yaml": "are they swapped?",
    "train --reward r_retry.yaml": "retries of at least 0, as numbers",
    "train --learning_rate -1": "learning_rate 0 or more",
    "train --learning_rate nan": "learning_rate 0 or more",
    "train --per_device_train_batch_size 0": "at least 1",
    "train --num_train_epochs 0": "num_train_epochs above 0",
    "train --max_steps -7": "at least 1, or -1 for unset",
    "train --kl_coef high": "kl_coef as a number",
    "train --response_length 1.5": "response_length as a whole number",
    "train --no_dataloader_drop_last --gamma 2": "gamma from 0 to 1",
    "train --total_episodes -5": "at least 1, or unset",
    "train --objective pppo": "did you mean 'ppo'?",
    "train --advantage_estimator gea": "did you mean 'gae'?",
    "train --stop_on kl kll": "did you mean 'kl'?",
    "train --whiten_rewards maybe": "whiten_rewards as true or false",
    "train --dry_run maybe": "dry_run as true or false",
    "train --suppress_tokens 1 a": "suppress_tokens as a whole number",
    "train --reward_weights 0 0": "at least one is not 0",
    "train --top_k 50": "leave top_k out",
    "train --fp16 true": "leave fp16 out",
    "train --torch_compile true": "see cuda_graphs",
    "train --lora_r 8": "add --use_peft",
    "train --use_peft --lora_r 0": "lora_r at least 1",
    "train --config": "a value after --config",
    "train --config yes.yaml": "whiten_rewards as true or false",
    "train --config list.yaml": "learning_rate as a single value",
    "train --config range.yaml": "learning_rate 0 or more",
    "train --config three.yaml": "a preset (article",
    "train --generation_kwargs {num_beams:4}": "generation_kwargs as JSON",
    'train --generation_kwargs {"num_beams":4}': "leave num_beams out",
    "train --text_column prompts": "did you mean 'prompt'?",
    "train --missing drop": "missing as one of error, skip, empty",
    "train --output_dir news.csv": "a folder as output_dir",
    "train --output_dir earlier": "resume with --resume_from_checkpoint, or give up what is there with --overwrite",
    "train --resume_from_checkpoint": "train without --resume_from_checkpoint, or check --output_dir",
    "train --resume_from_checkpoint nowhere": "nowhere: there is no such folder",
    "train --push_to me/my+model": "a repository as owner/name",
    "score news.csv --reward tiny --text_column txt": "did you mean 'text'?",
    "score latin.csv --reward tiny": "iconv",
    "score folder --reward tiny": "give one of its files: news.csv",
    "score news.csv": "a reward: article, tiny",
    "score news.csv --reward tiny --missing drop": "choose from 'error', 'skip', 'empty'",
    "score news.csv --reward tiny --prompt_column topics": "did you mean 'topic'?",
    "score news.csv --reward tiny --output scores.xlsx": "give it one of these endings",
    "score news.csv --reward tiny --output nowhere/scores.csv": "make the folder nowhere",
    "score --config s_key.yaml": "did you mean 'reward'?",
    "evaluate --config e_key.yaml": "did you mean 'metrics'?",
    "train --num_mini_batches 3": "among the divisors of 64",
    "train --preset article --num_mini_batches 3": "among the divisors of 8",
    "train --model me/mine --num_mini_batches 3": "among the divisors of 8",
    "train --config together.yaml": "among the divisors of 64",
    "train --num_generations 3": "that divides per_device_train_batch_size (64)",
    "train --gradient_accumulation_steps 0": "gradient_accumulation_steps at least 1",
    "train --advantage_estimator grpo": "num_generations at least 2",
    "train --advantage_estimator rloo --num_generations 1": "num_generations at least 2",
    "train --objective dpo": "num_generations at least 2",
    "train --objective dpo --num_generations 2 --gamma 0.9": "gamma left out",
    "train --objective raft --num_generations 2 --kl_estimator full": "by which raft ranks",
    "train --max_steps 3 --total_episodes 64": "both say when to stop",
    "train --min_new_tokens 50": "below response_length",
    "train --adaptive_kl --kl_horizon 3": "at least one rollout's episodes",
    "train --adaptive_kl --kl_horizon 0": "kl_horizon at least 1",
    "train --use_kl_loss": "'k3' or 'full'",
    "train --kl_estimator full --whiten_rewards": "whiten_rewards off",
    "train --advantage_estimator reinforce": "critic_learning_rate unset",
    "train --vf_coef 0": "vf_coef above 0",
    "train --sft_column text": "sft_coef=0 does not use it",
    "train --scale_rewards batch": "grpo alone scales",
    "train --multi_objective_aggregation normalize_then_sum": "for grpo alone",
    "train --eval_generation_kwargs nothing": "eval_generation_kwargs as a mapping",
    "train --reward_weights 1": "weights inside the one reward",
    "train --push_to_hub true": "--push_to user/name",
    "train --stop_on held_out_reward": "no held_out_reward",
    "train --stop_on held_out_reward --held_out_reward tiny": "eval_strategy='no'",
    "train --load_best_model_at_end true": "metric_for_best_model='reward'",
    "train --optim adam_torch": "did you mean 'adamw_torch'?",
    "train --lr_scheduler_type cosin": "did you mean 'cosine'?",
    "train --save_strategy step": "did you mean 'steps'?",
    "train --eval_strategy none": "did you mean 'no'?",
    "train --logging_strategy epochs": "did you mean 'epoch'?",
    "train --hub_strategy ever": "hub_strategy as one of end",
    "train --warmup_steps -5": "warmup_steps 0 or more",
    "train --report_to wandbb": "did you mean 'wandb'?",
    "train --report_to swanlab": "pip install swanlab",
    "train --no_whiten_rewards": "set --whiten_rewards to false",
    "train --no_dataloader_drop_last": "dataloader_drop_last left out",
    "train --config off.yaml": 'write save_strategy: "no"',
    "train --config null.yaml": "num_ppo_epochs at least 1",
    "train --reward r_name.yaml": "did you mean 'own.py:good'?",
    "train --reward r_gate.yaml": "did you mean 'two'?",
    "train --reward r_bundled.yaml": "r_bundled.yaml, rewards[0]: a label of bundled:acceptability-judge, by name",
    "score news.csv --reward r_typo.yaml": "did you mean 'acceptability-judge'?",
    "serve r_path.yaml": "r_path.yaml, rewards[0]: a text classifier",
    "evaluate news.csv --output_column text --metrics r_unnamed.yaml": "did you mean 'sentiment-judge_neutral'?",
    "score news.csv --reward r_unnamed.yaml": "did you mean 'sentiment-judge_neutral'?",
    "train --reward r_itself.yaml": "to name another reward",
    "serve r_scalar.yaml": "only_if of 'r_scalar.yaml, rewards[1]' as {reward: minimum score}",
    "score news.csv --reward r_name.yaml": "did you mean 'own.py:good'?",
    "train --model ./judge --dataset gaps.csv --text_column text": "none in 2 rows, the first of them row 2",
    "train --model ./judge --dataset gaps.csv": "--text_column text",
    "train --model ./judge --dataset excel.csv --text_column txt": "did you mean 'text'?",
    "train --model merged": "AutoTokenizer.from_pretrained(the base model).save_pretrained('merged')",
    "evaluate merged": "a tokenizer beside the model",
    "card stopped": "this run has not finished: resume it",
    "push stopped me/model --dry-run": "this run has not finished: resume it",
    "train --model data/gpt": "TRL's GRPOTrainer",
    "train --model bundled:sentiment-judge": "Found:    bundled:sentiment-judge with BertForSequenceClassification",
    "train --model data/gpt/config.json": "the file data/gpt/config.json\nNext:     pass its folder: data/gpt\n",
    "train --model news.csv": "pass the folder that save_pretrained() wrote",
    "serve r_inner.yaml": "pass its folder: judge",
    "evaluate pair.csv --compare judge/config.json": "pass its folder: judge",
    "evaluate judge/tokenizer.model": "pass its folder: judge",
    "train --save_steps 0": "--save_strategy no",
    "train --eval_strategy steps --eval_steps -1": "--eval_strategy no",
    "train --model data/gtp": "did you mean 'data/gpt'?",
    "train --dataset few.txt": "at least one rollout of prompts (64)\nFound:    63 in few.txt",
    "train --model a/b --dataset two.txt": "so that some can be held out",
    "train --model a/b --dataset two.txt --eval_dataset few.txt": "at least one rollout of prompts (8)",
    "evaluate outputs.jsonl --no-overwrite": "set --overwrite to false",
    "evaluate outputs.jsonl --output_dir evaluated": "--overwrite",
    "evaluate outputs.jsonl --fail-if-worse": "--compare MODEL_OR_FILE",
    "evaluate outputs.jsonl --output_column outputt": "did you mean 'output'?",
    "evaluate outputs.jsonl --compare news.csv": "--output_column",
    "evaluate outputs.jsonl --text_column text": "--output_column",
    "evaluate outputs.cvs": "did you mean 'outputs.jsonl'?",
    "evaluate other.cvs": "or a file of outputs",
    "evaluate empty.csv": "an empty file",
    "evaluate header.csv --output_column text": "only a header",
    "evaluate hole.csv": "--missing skip (leave such rows out)",
    "evaluate hole.csv --compare pair.csv": "or pass --missing empty",
    "evaluate pair.csv --compare outputs.jsonl": "2 in pair.csv",
    "evaluate pair.csv --compare pair.csv --fail-if-worse": "at least 5 rows",
    "evaluate pair.csv --compare turned.csv": "row 1: 'd' and 'a' in the column 'prompt'",
    "evaluate pair.csv --dataset turned.csv": "the same prompts in the same order in pair.csv and turned.csv",
    "evaluate pair.csv --dataset pair.csv --text_column promt": "did you mean 'prompt'?",
    "evaluate pair.csv --dataset asks.csv --reference_column refs": "'refs' in asks.csv\nFound:    prompt, ref",
    "evaluate pair.csv --dataset asks.csv --reference_column ref": "none in row 2",
    "evaluate pair.csv --reference_column refs": "did you mean 'ref'? name it with --reference_column",
    "evaluate pair.csv --fail-under reward=0.5": "or add the metric that has it (--metrics tiny)",
    "evaluate pair.csv --metrics tiny --lower-is-better neutralty": "did you mean 'neutrality'?",
    "evaluate pair.csv --metrics ruoge": "did you mean 'rouge'?",
    "evaluate pair.csv --metrics neutralty": "did you mean 'neutrality'?",
    "evaluate pair.csv --metrics articel": "did you mean 'article'?",
    "evaluate nowhere": "'nowhere', which is not here, and the Hub is not reached\nNext:     check the network",
    "evaluate data/fresh": "data is a folder here without 'fresh'; in it: gpt",
    "evaluate folder": "folder without config.json",
    "evaluate judge --compare folder": "pass the folder that save_pretrained() wrote",
    "evaluate stopped": "this run has not finished: resume it",
    "train --model folder": "folder without config.json",
    "evaluate --config ten.yaml": "as a whole number\nFound:    'ten'\nNext:     for example rows: 10; see",
    "evaluate --config kwargs.yaml": 'for example metric_kwargs: {"grammaticality": {"config_name": "tiny"}};',
    "evaluate --metric_kwargs {rouge:1}": """example --metric_kwargs '{"grammaticality": {"config_name": "tiny"}}';""",
    'evaluate pair.csv --metrics rouge --metric_kwargs {"rouge":"en"}': 'write {"rouge": {"NAME": "en"}}',
    "train --lr_scheduler_kwargs [1]": "lr_scheduler_kwargs as JSON",
    "train --output_dir polite --resume_from_checkpoint": "['acceptability', 'neutrality'] instead of ['politeness']",
    "train --output_dir new --resume_from_checkpoint polite/checkpoint-3": "'bundled:tiny-t5' instead of 'me/mine'",
    "evaluate pair.csv --metrics ./nothing": "no such file or folder",
    "evaluate pair.csv --metrics own_metric.py": "no such file or folder",
    'evaluate pair.csv --metric_kwargs {"gramaticality":{}}': "did you mean 'grammaticality'?",
    "evaluate pair.csv --metrics rouge": "name a --reference_column",
    "score empty.csv --reward tiny": "an empty file",
    "score news.csv --reward tiny --output scored.jsonl": "another text or other columns in its row 1",
    "score news.csv --reward tiny --output length.jsonl": "another text or other columns in its row 1",
    "score asks.csv --reward tiny": "--text_column prompt",
}


def test_an_interrupted_score_says_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import os, signal\n{}def stop(completions):\n    {}\n    return [1.0] * len(completions)\n"
    interrupt = "os.kill(os.getpid(), signal.SIGINT)"
    (tmp_path / "texts.txt").write_text("".join(f"text {row}\n" for row in range(600)), encoding="utf-8")
    line = ["score", "texts.txt", "--reward", "stop.yaml", "--output", "out.jsonl"]
    (tmp_path / "stop.yaml").write_text("rewards:\n- {function: stop.py:stop}\n", encoding="utf-8")
    for at_import, in_call, said in (
        (f"{interrupt}\n", "", "nothing was written yet"),  # while the reward is loaded
        ("", f"os.path.exists('out.jsonl') and {interrupt}", " of 600 texts are in out.jsonl; the same command"),
        (f"{interrupt}\n", "", "the same command resumes in out.jsonl"),
    ):
        (tmp_path / "stop.py").write_text(code.format(at_import, in_call), encoding="utf-8")
        status, output = in_a_process_of_its_own(*line)
        assert status == 130, output
        kept = len((tmp_path / "out.jsonl").read_bytes().splitlines()) if (tmp_path / "out.jsonl").exists() else 0
        assert (f"{kept}{said}" if said[0] == " " else said) in output, output
    assert 0 < kept < 600


def test_what_only_checks_input_answers_without_torch(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    program = """
import sys
from trl_rewards_plugin.cli.main import main
for line in sys.argv[1:]:
    assert main(line.split()) == 2, line
    assert "torch" not in sys.modules, line
    print("end of", line, file=sys.stderr)
"""
    lines = [
        "train --lerning_rate 1", "train --preset tinny", "train --dataset no.csv", "train --model ./no",
        "train --reward tinyy", "train --config no.yaml", "score no.txt", "score --rewrd x", "evaluate --metrcs x",
        "evaluate no.txt", "evaluate ./no", "evaluate --preset tinny", "evaluate --metrics no.yaml", "report no",
        "card no", "push no user/name", "serve no.yaml", "serve tiny --port -1", "trian",
    ]  # fmt: skip
    lines += FILE_LINES
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *lines], capture_output=True, text=True, check=False, cwd=tmp_path, env=offline
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\nNext: ") == len(lines)
    for line, part in FILE_LINES.items():
        answer = done.stderr.partition(f"end of {line}\n")[0].rpartition("end of ")[2]
        assert part in answer, answer


def test_the_flags_that_are_checked_first_are_all_that_there_are():
    fields = {one.name: one for one in dataclasses.fields(Seq2SeqPPOConfig) if one.init and one.name[0] != "_"}
    declared = declared_settings()
    assert declared.keys() == fields.keys()
    for name in Seq2SeqPPOConfig.__annotations__.keys() & fields.keys():
        assert list(declared[name].choices) == list(fields[name].metadata.get("choices", ()))
        assert declared[name].default == fields[name].default
    for name in ("optim", "lr_scheduler_type", "save_strategy", "eval_strategy", "logging_strategy", "hub_strategy"):
        assert list(declared[name].choices) == list(type(getattr(Seq2SeqPPOConfig(), name))._value2member_map_)
    assert list(known_trackers()) == list(INTEGRATION_TO_CALLBACK)


@pytest.mark.parametrize(
    ("module", "line"), [("recipes.run_rules", "--use_peft"), ("cli.train", "--report_to tensorboard")]
)
def test_a_missing_package_is_told_before_anything_is_loaded(monkeypatch, module, line):
    monkeypatch.setattr(f"trl_rewards_plugin.{module}.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        check_quickly(line.split())


def test_a_file_that_makes_names_as_it_runs_is_left_to_be_imported(tmp_path):
    (tmp_path / "made.py").write_text("globals()['go' + 'od'] = len\n", encoding="utf-8")
    check_name(f"{tmp_path / 'made.py'}:good")


def test_what_the_first_check_passes_is_what_the_recipe_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.csv").write_text("none\n" + "A cat.\n" * 72, encoding="utf-8")
    (tmp_path / "all.yaml").write_text(
        "reward_weights: null\nstop_on: [kl]\nseed: '3'\nsuppress_tokens: none\nlora_target_modules: none\n",
        encoding="utf-8",
    )
    for line in (
        "--use_peft --lora_target_modules q v --lora_r 4", "--dataset none.csv --text_column none",
        "--include_num_input_tokens_seen false", "--config all.yaml --report_to none --stop_on kl entropy",
        "--objective dpo --num_generations 2", "--advantage_estimator reinforce --critic_learning_rate none",
    ):  # fmt: skip
        for _ in range(2):  # the second time transformers has seen the fields
            check_quickly(line.split())
            build_recipe(line.split())


def test_a_resume_that_the_recipe_takes_passes_the_first_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/one/checkpoint-3", "data"):
        Path(name).mkdir(parents=True)
    Path("data/news.csv").write_text("prompt\n" + "A cat.\n" * 72, encoding="utf-8")
    rewards = [{"name": name, "weight": 1.0} for name in ("acceptability", "neutrality")]
    began = {"model": "bundled:tiny-t5", "reward": "tiny", "dataset": "../../data/news.csv", "text_column": "prompt"}
    run = began | {"prompt_prefix": "", "made_of": {"rewards": rewards}}
    Path("runs/one/config.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    Path("less.yaml").write_text("dataset: data/news.csv\n", encoding="utf-8")  # the preset's model and reward
    for line in (
        "--dataset data/news.csv --output_dir runs/one", "--config runs/one/config.yaml",
        "--config less.yaml --model bundled:tiny-t5 --output_dir runs/one", "--config less.yaml --output_dir runs/one",
    ):  # fmt: skip
        check_quickly([*line.split(), "--resume_from_checkpoint"])
    Path("data/news.csv").rename("data/olds.csv")
    with pytest.raises(InputError, match=r"olds\.csv' instead of"):
        check_quickly(["--dataset", "data/olds.csv", "--output_dir", "runs/one", "--resume_from_checkpoint"])


@pytest.mark.parametrize("annotation", [list[float] | None, "Optional[list[float]]", Weights])
def test_a_type_is_read_as_it_is_written(annotation):
    assert Declared(annotation).kinds == {"list", "float"}
    assert Declared(annotation).read("weights", ["1", 2]) == [1.0, 2.0]


def test_labels_that_transformers_takes_from_elsewhere_are_left_to_it(tmp_path):
    judge = {"model_type": "bert", "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    for name, more in (("adapter", {}), ("three", {"num_labels": 3})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(judge | more), encoding="utf-8")
        (tmp_path / f"{name}.yaml").write_text(f"rewards: [{{model: {name}, label: POS}}]", encoding="utf-8")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    for name in ("adapter", "three"):
        preset_content(tmp_path / f"{name}.yaml")
    (tmp_path / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(InputError, match="POS"):
        preset_content(tmp_path / "adapter.yaml")


def assert_refused(result, *parts):
    code, output = result
    assert "Traceback" not in output
    assert code == 2, output
    for part in ("Expected:", "Found:", "Next:", *parts):
        assert str(part) in output, output
    assert len(output) < 5_000


@pytest.fixture
def train(tiny_run, tmp_path):
    """`train` on tiny models, with further flags."""

    def call(*flags):
        return in_a_process_of_its_own(
            "train", "--model", tiny_run.model, "--reward", tiny_run.reward, "--dataset", tiny_run.dataset,
            "--output_dir", tmp_path / "out", "--per_device_train_batch_size", 4, "--num_mini_batches", 2,
            "--response_length", 4, "--max_steps", 1, "--use_cpu", "true", *flags,
        )  # fmt: skip

    return call


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--learning_rate", -1], "learning_rate"),
        (["--learning_rate", "nan"], "learning_rate"),
        (["--load_best_model_at_end", "true", "--metric_for_best_model", "reward"], "strategy"),
        (["--per_device_train_batch_size", 0], "per_device_train_batch_size"),
        (["--resume_from_checkpoint"], "checkpoint"),
        (["--output_dir", __file__], "a folder as output_dir"),
        (["--dataset", "./nothing"], "'./nothing': no such file"),
        (["--model", "./nothing"], "'./nothing'"),
        (["--reward", "./nothing.yaml"], "nothing.yaml"),
    ],
)
def test_settings_of_training(train, flags, part):
    assert_refused(train(*flags), part)


DATA = {
    "header.csv": b"prompt\n",
    "empty.csv": b"",
    "empty.jsonl": b"",
    "deep.jsonl": b'{"prompt": ' + b"[" * 200_000 + b"\n",
    "surrogate.jsonl": b'{"prompt": "a \\ud800 b"}\n' * 12,
    "numbers.jsonl": b'{"prompt": 4}\n' * 12,
    "latin.csv": b"prompt\ncaf\xe9\n",
    "cut.parquet": b"PAR1PAR1",
    "holes.csv": b"prompt,n\na,1\n,2\n" * 12,
    "semicolons.csv": b"prompt;n\na;1\n" * 12,
}


@pytest.mark.parametrize("name", DATA)
def test_data_of_training(train, tmp_path, name):
    (tmp_path / name).write_bytes(DATA[name])
    assert_refused(train("--dataset", tmp_path / name, "--text_column", "prompt"), name.partition(".")[0])


def test_rows_without_a_text_are_left_out_where_that_is_asked_for(train, tmp_path):
    (tmp_path / "holes.csv").write_bytes(b"prompt,n\n" + b"a,1\n,2\n" * 12)
    code, output = train("--dataset", tmp_path / "holes.csv", "--missing", "skip", "--dry_run", "true")
    assert code == 0, output
    assert "of 12 rows" in output


@pytest.mark.parametrize("name", ["deep.jsonl", "latin.csv", "cut.parquet", "holes.csv", "semicolons.csv"])
def test_data_of_scoring(tiny_run, tmp_path, name):
    (tmp_path / name).write_bytes(DATA[name])
    assert_refused(
        in_a_process_of_its_own("score", tmp_path / name, "--reward", tiny_run.reward, "--text_column", "prompt"), name
    )


def test_a_reward_that_reads_prompts_asks_for_the_flag(tmp_path):
    (tmp_path / "r.yaml").write_text("rewards:\n- {function: similarity, reference: prompt}\n")
    (tmp_path / "t.jsonl").write_text('{"text": "a", "question": "b"}\n')
    assert_refused(
        in_a_process_of_its_own("score", tmp_path / "t.jsonl", "--reward", tmp_path / "r.yaml"), "--prompt_column"
    )


@pytest.mark.parametrize("verb", ["score", "train"])
def test_a_reward_that_raises_is_told_by_the_line_of_its_file(train, tmp_path, verb):
    code = "import json\n\ndef words(completions):\n    return [json.loads(text + '{') for text in completions]\n"
    own = tmp_path / f"raises_in_{verb}.py"
    own.write_text(code)
    (tmp_path / "r.yaml").write_text(f"rewards:\n- {{function: '{own.name}:words'}}\n")
    (tmp_path / "t.txt").write_text("a text\n")
    flags = ["--reward", tmp_path / "r.yaml"]
    run = train(*flags, "--dry_run") if verb == "train" else command("score", tmp_path / "t.txt", *flags)
    assert_refused(run, "JSONDecodeError: ", f" at {own}:4 in words; it was called on ", "the first of them")


@pytest.mark.parametrize(
    ("verb", "flag"),
    [("train", "--output_dir"), ("evaluate", "--output_dir"), ("report", "--output"), ("card", "--preview")],
)
def test_a_place_for_results_that_is_a_folder_or_a_file(tiny_run, finished_run, tmp_path, verb, flag):
    place = tmp_path
    if flag == "--output_dir":
        place = tmp_path / "file"
        place.touch()
    arguments = [] if verb == "train" else [finished_run]
    assert_refused(in_a_process_of_its_own(verb, *arguments, flag, place), place)


@pytest.mark.parametrize("name", ["folder", "folder.jsonl", "file/x.jsonl", "nowhere/x.jsonl"])
def test_an_output_that_cannot_be_written(tiny_run, tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "t.txt").write_text("a\n")
    assert_refused(
        in_a_process_of_its_own("score", tmp_path / "t.txt", "--reward", tiny_run.reward, "--output", tmp_path / name)
    )


DAMAGES = {
    "metrics.json": [b"", b"{}", b"[]", b"{", b'{"before": 3}', b'{"\\ud800": 1}', b"[" * 100_000, b"\xff", b"null"],
    "config.yaml": [b"a: [", b"- a", b"\xff", b"a: " + b"[" * 5_000, b"made_of: 3", b"x: &a [*a]"],
    "completions.parquet": [b"", b"PAR1garbagePAR1"],
    "config.json": [b"", b"{", b"[]", b"\xff", b"[" * 100_000],
    "log.jsonl": [b"3\n", b"{\n", b'{"step": "x", "reward": 1}\n', b"[" * 100_000 + b"\n"],
    "README.md": [b"\xff\xfe"],
    "model.safetensors": [b"", b"x" * 100],
}  # fmt: skip
READ_BY = {
    "config.json": ["push"],
    "log.jsonl": ["report"],
    "README.md": ["card", "push"],
    "model.safetensors": ["push"],
}


@pytest.mark.parametrize(
    ("verb", "name", "content"),
    [
        pytest.param(verb, name, content, id=f"{verb}-{name}-{content[:12]!r}")
        for name, contents in DAMAGES.items()
        for content in contents
        for verb in READ_BY.get(name, ["card", "push", "report"])
    ],
)
def test_a_damaged_run_folder(run, verb, name, content):
    (run / name).write_bytes(content)
    further = {"card": [], "push": ["me/x", "--dry-run"], "report": []}[verb]
    is_deep = len(content) > 1_000  # what once ended the reader
    assert_refused((in_a_process_of_its_own if is_deep else command)(verb, run, *further), name)


@pytest.mark.parametrize("answer", [[], {}, {"name": 3}, {"name": "me", "auth": []}, "hello", None])
def test_a_proxy_that_answers_something_else(hub, run, answer):
    hub.users[hub.token] = answer
    code, output = in_a_process_of_its_own("push", run, "me/model")  # the server here complains on standard error
    assert "Traceback" not in output
    assert code in (1, 2), output
    assert "Next:" in output


@pytest.mark.parametrize("answer", [[], {}, "hello", {"files": 3, "objects": [{}]}, [{"type": "file", "path": 3}]])
@pytest.mark.parametrize("step", ["/models/me/model$", "/tree/", "preupload", "/lfs/", "/commit", "validate-yaml"])
def test_a_proxy_that_answers_something_else_to_any_request(hub, run, capsys, step, answer):
    assert main(["push", str(run), "me/model"]) == 0
    (run / "generation_config.json").write_text("{}")
    (run / "README.md").write_text((run / "README.md").read_text() + "An edit.\n")
    (run / "reward_curve.png").unlink()
    capsys.readouterr()
    hub.answer(step, answer)
    code = main(["push", str(run), "me/model"])  # within this process: raised here is a traceback there
    assert code in (0, 1, 2)
    assert (code == 0) == ("Next:" not in capsys.readouterr().err)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("evaluate outputs.jsonl --metrics ruoge", "did you mean 'rouge'?"),
        ("push --metric earlier me/x --dry-run", "no app.py in earlier"),
    ],
)
def test_what_misleads(tmp_path, monkeypatch, line, part):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs.jsonl").write_text('{"output": "a"}\n')
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "evaluation.json").write_text("{}")
    assert_refused(command(*line.split()), part)
