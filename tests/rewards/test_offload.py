import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from tests.rewards.judges import TEXTS, judge
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import ClassifierReward, MultiClassifierReward

# Two 102 MB classifiers (most of it positions that no text reaches, so that scoring is quick) and room for one and a
# half. Private memory is what is limited: a file that is mapped read-only costs nothing.
LIMITED = """
import resource, sys, torch, transformers
from trl_rewards_plugin.rewards import ClassifierReward, MultiClassifierReward
offload = None if sys.argv[3] == "none" else sys.argv[3]
ClassifierReward(sys.argv[4], label=1, name="warm")(["up"])
reward = MultiClassifierReward(
    [ClassifierReward(folder, label=1, name=name, offload=offload) for name, folder in zip("ab", sys.argv[1:3])]
)
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
limit = used + int(sys.argv[5]) * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for _ in range(2):
    scores = reward(["The cat sleeps."])
print(scores)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Folders of two classifiers of one architecture, 102 MB each."""
    folders = []
    for seed in range(2):
        torch.manual_seed(seed)
        folder = tmp_path_factory.mktemp(f"large{seed}")
        config = RobertaConfig.from_pretrained(judge(), hidden_size=256, max_position_embeddings=100_000)
        RobertaForSequenceClassification(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(judge()).save_pretrained(folder)
        folders.append(str(folder))
    return folders


def limited(folders, offload, megabytes):
    command = [sys.executable, "-c", LIMITED, *folders, offload, str(judge()), str(megabytes)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_two_classifiers_that_do_not_fit_together_score_one_after_the_other(large):
    together = limited(large, "none", 150)
    assert together.returncode != 0
    assert "memory" in together.stderr
    one_by_one = limited(large, "disk", 150)
    assert one_by_one.returncode == 0, one_by_one.stderr
    free = limited(large, "none", 10_000)
    assert free.returncode == 0, free.stderr
    assert one_by_one.stdout == free.stdout


def test_weights_on_disk_are_loaded_for_each_scoring_and_dropped_after_it(loads):
    reward = ClassifierReward(judge(), label="good", offload="disk")
    expected = ClassifierReward(judge(), label="good")(TEXTS)
    loads.clear()
    for count in (1, 2):
        assert reward(TEXTS) == expected
        assert reward._classifier._model is None
        assert len(loads) == count
    assert reward.model.training is False


def test_weights_leave_the_memory_after_a_failure_too():
    reward = ClassifierReward(judge(), label="good", offload="disk")
    model = reward.model
    model.classifier.forward = None
    with pytest.raises(RuntimeError, match="raised TypeError"):
        reward(TEXTS)
    assert reward._classifier._model is None


def test_a_loaded_model_waits_in_the_cpus_memory(monkeypatch):
    model = AutoModelForSequenceClassification.from_pretrained(judge())
    tokenizer = AutoTokenizer.from_pretrained(judge())
    reward = ClassifierReward(model, label="good", tokenizer=tokenizer, name="r", offload="cpu")
    moves = []
    monkeypatch.setattr(model, "to", lambda place: moves.append(str(place)) or model)
    expected = ClassifierReward(judge(), label="good")(TEXTS)
    assert reward(TEXTS) == expected
    assert moves[-1] == "cpu"
    assert len(moves) > 1  # on its device before it is moved away
    assert reward._classifier._model is not None


def test_rewards_on_one_model_share_it_only_where_both_offload_it_alike():
    def multi(*offloads):
        rewards = [ClassifierReward(judge(), label=i, name=f"r{i}", offload=one) for i, one in enumerate(offloads)]
        MultiClassifierReward(rewards)
        return rewards[0]._classifier is rewards[1]._classifier

    assert multi("disk", "disk")
    assert not multi("disk", None)


def test_threads_agree_on_weights_that_come_and_go():
    reward = MultiClassifierReward(
        [ClassifierReward(judge(), label=i, name=f"r{i}", offload="disk") for i in range(2)], [1.0, -0.5]
    )
    batches = [[f"{thread} {text}" for text in TEXTS] for thread in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(reward, batches))
    assert found == [reward(texts) for texts in batches]


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="'cpu' or 'disk'"):
        ClassifierReward(judge(), label="good", offload="gpu")
    model = AutoModelForSequenceClassification.from_pretrained(judge())
    with pytest.raises(InputError, match="offload='disk'"):
        ClassifierReward(model, label=1, tokenizer=AutoTokenizer.from_pretrained(judge()), offload="disk")
