"""The server and its client over real sockets on loopback; one server is a process of its own, and is killed."""

import asyncio
import contextlib
import http.server
import json
import math
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
import urllib3
import uvicorn

from trl_rewards_plugin.cli.main import main
from trl_rewards_plugin.cli.serve import ServeSettings, _bind
from trl_rewards_plugin.errors import InputError, NoAnswerError
from trl_rewards_plugin.rewards import (
    LengthReward,
    MultiClassifierReward,
    RemoteReward,
    RewardScores,
    SimilarityReward,
    presets,
    remote_reward,
)
from trl_rewards_plugin.rewards.functions import CallableReward
from trl_rewards_plugin.runs.public_names import public_part
from trl_rewards_plugin.serving.merged_scoring import MergedScoring, Texts
from trl_rewards_plugin.serving.reward_server import reward_server

TEXTS = ["The cat sleeps.", "", "naïve 日本語 🙂 \u2028", "a b c d e f g h", "lone \ud800 surrogate"]


@contextlib.contextmanager
def served(reward, port=0, **options):
    """The address of a server for `reward` in a thread of this process."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(128)  # clients wait from now on, not only once the server runs
        config = uvicorn.Config(reward_server(reward, **options), log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def post(url, content, **headers):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    answer = urllib3.request("POST", url, body=body, headers=headers, retries=False)
    return answer.status, json.loads(answer.data)


@pytest.fixture(scope="module")
def combination():
    return MultiClassifierReward.from_preset("tiny")


@pytest.fixture(scope="module")
def url(combination):
    with served(combination) as address:
        yield address


@pytest.fixture
def waits(monkeypatch):
    """The seconds between attempts, which follow each other at once."""
    found = []
    monkeypatch.setattr(remote_reward, "time", SimpleNamespace(sleep=found.append))
    return found


@pytest.fixture
def nobody():
    """An address at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def half_of(completions, **kwargs):
    return [None if "x" in text else len(text) / 2 for text in completions]


def test_a_remote_reward_gives_the_scores_of_a_local_call_to_the_last_bit(combination, url):
    local = combination.score(TEXTS)
    _, answer = post(f"{url}/score", {"texts": TEXTS})
    assert answer["total"] == local.total.tolist()
    assert {name: torch.tensor(values).tolist() for name, values in answer["components"].items()} == {
        name: values.tolist() for name, values in local.components.items()
    }
    assert RemoteReward(url)(completions=TEXTS) == local.total.tolist()
    # In other batches float32 rounds otherwise.
    assert RemoteReward(url, batch_size=2)(TEXTS) == pytest.approx(local.total.tolist(), abs=5e-6)


def test_it_is_a_part_of_a_combination_and_of_a_reward_file(combination, url, tmp_path):
    both = MultiClassifierReward([RemoteReward(url, name="judge", timeout=9), LengthReward(max_length=3)], [0.5, 2.0])
    expected = 0.5 * combination.score(TEXTS).total + 2.0 * LengthReward(max_length=3).score(TEXTS).total
    assert torch.equal(both.score(TEXTS).total, expected)
    both.save_preset(tmp_path / "reward.yaml")
    again = MultiClassifierReward.from_preset(tmp_path / "reward.yaml")
    assert again.describe()[0]["url"] == url
    assert again.describe()[0]["timeout"] == 9
    assert torch.equal(again.score(TEXTS).total, expected)


def test_chat_messages_prompts_and_columns_reach_the_reward():
    reward = SimilarityReward("summary", rouge_type="rouge1")
    with served(reward) as url:
        remote = RemoteReward(url, columns=["summary"])
        chat = [[{"role": "assistant", "content": "the cat"}]]
        assert remote(chat, summary=["the cat"]) == [1.0]
        with pytest.raises(InputError, match="the column 'summary', which reward"):
            remote(chat)
    with served(SimilarityReward("prompt", rouge_type="rouge1")) as url:
        assert RemoteReward(url)(["the cat"], prompts=["the cat"]) == [1.0]


def test_no_score_stays_no_score():
    with served(CallableReward(half_of)) as url:
        scores = RemoteReward(url)(["abcd", "x"])
    assert scores[0] == 2.0
    assert math.isnan(scores[1])


def test_64_clients_at_once_get_their_own_scores_in_few_calls(combination):
    calls = []

    class Counting:
        name, component_names = "counting", combination.component_names

        def score(self, texts, prompts=None, **columns):
            calls.append(len(texts))
            return combination.score(texts, prompts, **columns)

    texts = [[f"Client {client} writes text {i}." for i in range(client % 5 + 1)] for client in range(64)]
    with served(Counting()) as url, ThreadPoolExecutor(64) as clients:
        found = list(clients.map(lambda own: RemoteReward(url)(own), texts))
    assert sum(calls) == sum(map(len, texts))
    assert len(calls) < 64
    for own, scores in zip(texts, found, strict=True):
        # In other batches float32 rounds otherwise.
        assert scores == pytest.approx(combination.score(own).total.tolist(), abs=5e-6)


async def _both(scoring, good, bad):
    serving = asyncio.create_task(scoring.run())
    found = await asyncio.gather(scoring.score(good), scoring.score(bad), return_exceptions=True)
    serving.cancel()
    return found


def test_bad_input_of_one_client_does_not_fail_the_other_in_its_batch():
    def fussy(completions, **kwargs):
        if "bad" in completions:
            raise ValueError("bad text")
        return [1.0] * len(completions)

    scoring = MergedScoring(CallableReward(fussy), batch=10, capacity=10)
    good, bad = asyncio.run(_both(scoring, Texts(["a", "b"]), Texts(["bad"])))
    assert good.total.tolist() == [1.0, 1.0]
    assert isinstance(bad, RuntimeError)
    assert scoring.waiting == 0


def test_openrlhf_is_answered_as_its_client_reads_it(combination, url):
    # The body that OpenRLHF's request_api_wrapper posts to --remote_rm_url.
    request = {"query": ["Say: hi. Hello there."], "prompts": ["Say: hi. "], "labels": [""]}
    status, answer = post(f"{url}/get_reward", request, **{"Content-Type": "application/json"})
    assert status == 200
    assert answer["rewards"] == answer["scores"] == combination.score(["Hello there."]).total.tolist()
    assert set(answer["extra_logs"]) == set(combination.component_names())
    assert post(f"{url}/get_reward", {**request, "prompts": ["Say:hi. "]})[0] == 422
    # Older releases send the query alone.
    assert post(f"{url}/get_reward", {"query": ["Hello there."]})[1]["rewards"] == answer["rewards"]


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"{", 400, "JSON"),
        (b"[" * 100_000, 400, "JSON"),
        (b"[1]", 400, "list"),
        ({"text": ["a"]}, 422, "text"),
        ({"texts": "a"}, 422, "a list of texts"),
        ({"texts": [1]}, 422, "a list of texts"),
        ({"texts": ["a"], "prompts": ["a", "b"]}, 422, "1 values in 'prompts'"),
        ({"texts": ["a"], "columns": ["a"]}, 422, "columns"),
        ({"texts": ["a"], "columns": {"topic": "a"}}, 422, "topic"),
        ({"texts": ["a"], "columns": {"log_metric": ["a"]}}, 422, "log_metric"),
        ({"texts": ["a"], "\ud800": 1}, 422, "texts, prompts, columns"),
        ({"texts": ["a" * 5000]}, 413, "1,000 bytes"),
    ],
)
def test_bad_requests_are_answered_in_three_parts(content, status, said):
    with served(CallableReward(half_of), max_body_bytes=1_000 if status == 413 else 10**6) as url:
        found, answer = post(f"{url}/score", content)
    assert found == status
    assert set(answer["error"]) == {"expected", "found", "next_step"}
    assert said in str(answer["error"])


def test_the_token_is_asked_for_everywhere_but_at_health(monkeypatch):
    monkeypatch.delenv("TRL_REWARDS_TOKEN", raising=False)
    with served(CallableReward(half_of), token="other") as url:
        assert json.loads(urllib3.request("GET", f"{url}/health").data)["reward"] == "half_of"
        assert urllib3.request("GET", f"{url}/metrics").status == 401
        assert post(f"{url}/score", {"texts": []}, Authorization="Bearer sesame")[0] == 401
        for ask in (RemoteReward(url).check_server, lambda: RemoteReward(url)(["abcd"])):
            with pytest.raises(InputError, match=r"401: a missing or wrong token\nNext: .*set TRL_REWARDS_TOKEN"):
                ask()
    with pytest.raises(InputError, match="ASCII"):
        reward_server(CallableReward(half_of), token="sésame")
    with served(CallableReward(half_of), token="sesame") as url:
        monkeypatch.setenv("TRL_REWARDS_TOKEN", "sesame")
        assert RemoteReward(url)(["abcd"]) == [2.0]


def test_a_full_queue_is_answered_by_503_and_waited_for(waits):
    entered, leave = threading.Event(), threading.Event()

    def slow(completions, **kwargs):
        entered.set()
        leave.wait()
        return [1.0] * len(completions)

    with served(CallableReward(slow), max_waiting_texts=1) as url, ThreadPoolExecutor(2) as clients:
        first = clients.submit(RemoteReward(url), ["a"])
        entered.wait()
        assert post(f"{url}/score", {"texts": ["b"]})[0] == 503
        with pytest.raises(RuntimeError, match=r"status 503: .*; 3 attempts"):
            RemoteReward(url, retries=2)(["b"])
        assert len(waits) == 2
        assert min(waits) >= 1  # as its Retry-After says
        leave.set()
        assert first.result() == [1.0]
        assert RemoteReward(url)(["b"]) == [1.0]


def test_prometheus_counts_requests_and_texts(combination):
    with served(combination) as url:
        RemoteReward(url)(TEXTS)
        post(f"{url}/score", b"{")
        metrics = urllib3.request("GET", f"{url}/metrics").data.decode()
    assert f"trl_rewards_texts_total {len(TEXTS)}.0" in metrics
    assert 'trl_rewards_requests_total{path="/score",status="200"} 1.0' in metrics
    assert 'trl_rewards_requests_total{path="/score",status="400"} 1.0' in metrics


class _Wrong(http.server.BaseHTTPRequestHandler):
    body = b""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", 'JSON with "total"'),
        (b"[]", 'JSON with "total"'),
        (b'{"total": [1.0]}', "2 scores"),
        (b'{"total": ["1", "2"]}', "finite float"),
        (b'{"total": [Infinity, 1]}', "finite float"),
        (b'{"total": [1, 2], "components": [1]}', 'JSON with "total"'),
        (b'{"total": [1, 2], "components": {"a": [1]}}', "2 scores from reward 'remote/a'"),
    ],
)
def test_a_wrong_answer_never_becomes_a_number(body, said):
    handler = type("Wrong", (_Wrong,), {"body": body})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        remote = RemoteReward(f"http://127.0.0.1:{server.server_port}", on_failure="none")
        with pytest.raises(InputError, match=re.escape(said)):
            remote(["a", "b"])
        server.shutdown()


def test_a_server_that_never_answers_is_given_up_in_time(waits):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RuntimeError, match=r"timed out; 2 attempts\n.*start the server"):
            RemoteReward(url, timeout=0.05, retries=1)(["a"])


def test_where_nobody_ever_answered_the_first_call_fails_at_once_and_says_why_in_a_line(nobody, waits, caplog):
    for url, found in ((nobody, "connection refused"), ("http://no-such-host.invalid", "name")):
        with pytest.raises(NoAnswerError) as caught:
            RemoteReward(url)(["a"])
        assert caught.value.expected == f"scores from {url} for reward 'remote'"
        assert found in caught.value.found
        assert len(caught.value.found) < 50
        assert 'in a file on_failure: none), together with aggregation="weighted_mean"' in caught.value.next_step
    assert waits == caplog.messages == []


def test_a_first_connection_that_is_closed_reached_something_and_is_tried_again(waits):
    body = b'{"total": [0.5]}'

    def answer(listening):
        listening.accept()[0].close()
        connection, _ = listening.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, args=(listening,)).start()
        assert RemoteReward(f"http://127.0.0.1:{listening.getsockname()[1]}")(["a"]) == [0.5]
    assert len(waits) == 1


def test_a_server_that_answered_is_waited_for_with_one_warning(waits, caplog):
    with served(CallableReward(half_of)) as url:
        remote = RemoteReward(url)
        assert remote(["abcd"]) == [2.0]
    with pytest.raises(NoAnswerError, match=r"Found: .*refused; 7 attempts\nNext: .* again and resume") as caught:
        remote(["abcd"])
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert [int(wait / 0.5) for wait in waits[:2]] == [1, 2]
    assert 31.5 <= sum(waits) <= 34.5
    seconds = math.ceil(sum(waits))
    said = f"reward 'remote': no scores from {url} (connection refused); trying again for up to {seconds} s"
    assert caplog.messages == [said]


def test_a_restart_costs_the_wait_alone(monkeypatch):
    with contextlib.ExitStack() as restarted:
        with served(CallableReward(half_of)) as url:
            remote = RemoteReward(url)
            assert remote(["abcd"]) == [2.0]

        def restart(seconds):
            restarted.enter_context(served(CallableReward(half_of), int(url.rpartition(":")[2])))

        monkeypatch.setattr(remote_reward, "time", SimpleNamespace(sleep=restart))
        assert remote(["ab"]) == [1.0]  # over connections of the old server


def test_a_server_that_stays_away_is_tried_once_a_call_until_it_answers_again(waits, caplog):
    with served(CallableReward(half_of)) as url:
        remote = RemoteReward(url, retries=2, batch_size=1, on_failure="none")
        assert remote(["abcd"]) == [2.0]
    assert all(map(math.isnan, remote(["abcd", "ab"])))  # two requests, of which the first is patient
    assert all(map(math.isnan, remote(["abcd"])))
    assert len(waits) == 2
    assert len([line for line in caplog.messages if "trying again" in line]) == 1
    assert "(connection refused); 1 text gets no score" in caplog.text
    with served(CallableReward(half_of), int(url.rpartition(":")[2])):
        assert remote(["abcd"]) == [2.0]
    assert all(map(math.isnan, remote(["abcd"])))
    assert len(waits) == 4


def test_the_command_line_says_in_four_lines_that_nobody_answers(nobody, tmp_path, capsys):
    (tmp_path / "reward.yaml").write_text(f"rewards:\n- {{function: remote, url: '{nobody}'}}\n", encoding="utf-8")
    (tmp_path / "in.txt").write_text("a\n", encoding="utf-8")
    out = str(tmp_path / "out.jsonl")
    assert main(["score", str(tmp_path / "in.txt"), "--reward", str(tmp_path / "reward.yaml"), "--output", out]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert [line.split(":")[0] for line in said.splitlines()[-4:]] == ["trl-rewards", "Expected", "Found", "Next"]


@pytest.mark.parametrize(
    ("path", "step"), [("/score", "leave /score out"), ("/get_reward", "leave /get_reward out"), ("/v1", "check that")]
)
def test_an_address_with_a_path_too_many_is_told_what_to_leave_out(url, path, step):
    with pytest.raises(InputError, match=f"status 404[\\s\\S]*{step}"):
        RemoteReward(url + path)(["a"])
    with pytest.raises(InputError, match=step):
        RemoteReward(url + path).check_server()


def test_what_the_server_refuses_is_said_in_its_own_three_parts():
    def on_topic(completions, topic):
        return [1.0] * len(completions)

    with served(CallableReward(on_topic)) as url, pytest.raises(InputError, match="the column 'topic'") as caught:
        RemoteReward(url)(["a"])
    assert "{" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "score in.txt --reward outer.yaml",
        "train --reward outer.yaml --dry_run",
        "evaluate in.csv --metrics outer.yaml",
    ],
)
def test_the_servers_of_a_file_are_asked_before_torch_is_loaded(nobody, tmp_path, line):
    (tmp_path / "reward.yaml").write_text(f"rewards:\n- {{function: remote, url: '{nobody}'}}\n", encoding="utf-8")
    (tmp_path / "outer.yaml").write_text("rewards:\n- combination: reward.yaml\n", encoding="utf-8")
    for name in ("in.txt", "in.csv"):
        (tmp_path / name).write_text("output\nA cat.\n", encoding="utf-8")
    program = "import sys; from trl_rewards_plugin.cli.main import main"
    program += "; sys.exit(main(sys.argv[1:]) + 10 * ('torch' in sys.modules))"
    command = [sys.executable, "-c", program, *line.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert f"no answer\nExpected: scores from {nobody} for reward 'remote'" in done.stderr


def test_servers_that_a_call_would_wait_for_or_do_without_are_not_refused(nobody):
    RemoteReward(nobody, on_failure="none").check_server()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        RemoteReward(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05).check_server()


def test_a_server_is_asked_before_any_classifier_is_loaded(monkeypatch, nobody):
    judge = presets.tiny.rewards[0]
    monkeypatch.setattr(type(judge), "logits", None)
    with pytest.raises(NoAnswerError):
        MultiClassifierReward([judge, RemoteReward(nobody)]).score(TEXTS)


def test_the_components_of_the_server_are_logged_below_its_name(combination, waits):
    means, columns = {}, {}
    log = {"log_metric": means.__setitem__, "log_extra": columns.__setitem__}
    parts = combination.component_names()
    with served(combination) as url:
        remote = RemoteReward(url, name="judges", batch_size=2, on_failure="none")
        remote(TEXTS, **log)
        within = MultiClassifierReward([RemoteReward(url, name="judges")], name="within")
        MultiClassifierReward([within, LengthReward()])(TEXTS, **log)
        assert list(remote.score(TEXTS).components) == ["judges"]
    for name, scores in combination.score(TEXTS).components.items():
        for place in ("judges", "within/judges"):
            assert columns[f"{place}/{name}"] == pytest.approx(scores.tolist(), abs=5e-6)
            assert means[f"rewards/{place}/{name}/mean"] == pytest.approx(scores.mean().item(), abs=5e-6)
    means.clear()
    remote(TEXTS, **log)
    assert means == {}
    # One value per text all the same: TRL would show those of the step before.
    assert all(len(columns[f"judges/{name}"]) == len(TEXTS) for name in parts)
    assert all(math.isnan(one) for name in parts for one in columns[f"judges/{name}"])


def start_process(port):
    command = [sys.executable, "-m", "trl_rewards_plugin.cli.main", "serve", "tiny", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    for line in process.stderr:
        if "running on" in line:
            return process, re.search(r"http://[\d.:]+", line).group()
    raise AssertionError(f"the server ended with {process.wait()}")


@pytest.mark.slow
def test_a_killed_server_costs_waiting_or_a_clear_stop_and_a_terminated_one_ends_cleanly(combination, waits, caplog):
    # To 1e-6: another process may have other threads, and so another order of sums.
    expected = pytest.approx(combination.score(TEXTS).total.tolist(), abs=1e-6)
    process, url = start_process(0)
    remote = RemoteReward(url, name="judge", retries=2)
    assert remote(TEXTS) == expected
    process.kill()
    process.wait()
    process.stderr.close()
    with pytest.raises(RuntimeError, match=r"scores from .* for reward 'judge'\n.*; 3 attempts"):
        remote(TEXTS)
    lenient = RemoteReward(url, name="judge", retries=0, on_failure="none")
    assert all(map(math.isnan, lenient(TEXTS)))
    assert f"{len(TEXTS)} texts get no score" in caplog.text
    process, _ = start_process(url.rpartition(":")[2])
    assert remote(TEXTS) == expected  # the same object, over connections of the old server
    process.send_signal(signal.SIGTERM)
    assert process.wait() in (0, -signal.SIGTERM)
    process.stderr.close()


def test_a_port_in_use_and_an_unknown_host_are_refused_before_any_model_loads(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "tiny", "--port", port]) == 2
    assert f"an address to listen on: 127.0.0.1:{port}" in capsys.readouterr().err
    with (
        _bind(ServeSettings(port=0)) as first,  # while its models load
        pytest.raises(InputError, match="an address to listen on"),
    ):
        _bind(ServeSettings(port=first.getsockname()[1]))
    assert main(["serve", "tiny", "--host", "no-such-host.invalid", "--port", "0"]) == 2
    assert "an address to listen on: no-such-host.invalid:0" in capsys.readouterr().err


@pytest.mark.parametrize(("token", "access"), [("secret", "(bearer token required)"), ("", "(no token)")])
def test_the_first_line_says_whether_a_token_is_required(tmp_path, monkeypatch, capsys, token, access):
    (tmp_path / "reward.yaml").write_text("rewards: [{function: length}]", encoding="utf-8")
    monkeypatch.setenv("TRL_REWARDS_TOKEN", token)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: sockets[0].close())
    main(["serve", str(tmp_path / "reward.yaml"), "--port", "0"])
    assert access in capsys.readouterr().err


def test_it_is_pickled_without_its_connections(url):
    remote = RemoteReward(url)
    assert remote(["a"]) == pickle.loads(pickle.dumps(remote))(["a"])


@pytest.mark.parametrize(
    "line", ["normalization: zscore", "weight_schedule: {0.0: 0.0, 1.0: 1.0}", "constraints: {min: 0.5}"]
)
def test_a_reward_that_moves_with_requests_or_training_is_not_served(tmp_path, capsys, line):
    file, outer = tmp_path / "reward.yaml", tmp_path / "outer.yaml"
    objective = "- {function: length, name: objective}"
    file.write_text(f"rewards:\n{objective}\n- function: length\n  max_length: 9\n  {line}\n", encoding="utf-8")
    outer.write_text("rewards:\n- combination: reward.yaml\n", encoding="utf-8")
    for path in (file, outer):
        assert main(["serve", str(path)]) == 2
        assert f"{line.partition(':')[0]}" in capsys.readouterr().err


def test_a_file_of_strangers_sends_nothing_anywhere(tmp_path):
    file = tmp_path / "reward.yaml"
    file.write_text("rewards:\n- function: remote\n  url: http://127.0.0.1:1\n", encoding="utf-8")
    with pytest.raises(InputError, match="use models, assets and length"):
        MultiClassifierReward.from_preset(file, allow_code=False)


@pytest.mark.parametrize(("flag", "value"), [("--port", "99999"), ("--max-body-mb", "0"), ("--batch-texts", "-1")])
def test_settings_of_the_server_that_do_not_fit_are_refused(flag, value, capsys):
    assert main(["serve", "tiny", flag, value]) == 2
    assert value in capsys.readouterr().err


def test_a_port_without_its_flag_is_refused_with_the_flag(capsys):
    assert main(["serve", "tiny", "8123"]) == 2
    assert "say --port 8123" in capsys.readouterr().err


def test_what_a_client_that_went_away_asked_for_is_not_scored():
    scored, entered, leave = [], threading.Event(), threading.Event()

    def slow(completions, **kwargs):
        scored.extend(completions)
        entered.set()
        leave.wait()
        return [1.0] * len(completions)

    with served(CallableReward(slow)) as url, ThreadPoolExecutor(1) as clients:
        first = clients.submit(RemoteReward(url), ["first"])
        entered.wait()
        with pytest.raises(RuntimeError):
            RemoteReward(url, timeout=0.2, retries=0)(["abandoned"])
        waiting = b"trl_rewards_waiting_texts 1.0"  # the server has seen it leave
        while waiting not in urllib3.request("GET", f"{url}/metrics").data:
            pass
        leave.set()
        assert first.result() == [1.0]
        assert RemoteReward(url)(["last"]) == [1.0]
    assert scored == ["first", "last"]


def test_a_reward_that_gives_another_number_of_scores_fails_its_request_alone():
    class Short:
        name = "short"

        def component_names(self):
            return ["short"]

        def score(self, texts, prompts=None, **columns):
            return RewardScores(torch.ones(1), {})

    with served(Short()) as url:
        assert post(f"{url}/score", {"texts": ["a", "b"]})[0] == 500
        assert post(f"{url}/score", {"texts": ["a"]})[1]["total"] == [1.0]
        assert urllib3.request("GET", f"{url}/health").status == 200


def test_no_address_and_no_login_reaches_a_card():
    with pytest.raises(InputError, match="a URL without a login"):
        RemoteReward("http://me:secret@gpu7.example:8000")
    (row,) = MultiClassifierReward([RemoteReward("http://gpu7.example:8000")]).describe()
    assert "gpu7" not in str(public_part(row))


def test_a_subclass_with_other_arguments_is_described_as_a_remote_reward():
    class Mine(RemoteReward):
        def __init__(self, host):
            super().__init__(f"http://{host}:8000", timeout=9)

    (row,) = MultiClassifierReward([Mine("gpu7")]).describe()
    assert (row["function"], row["url"], row["timeout"]) == ("remote", "http://gpu7:8000", 9)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0}, {"timeout": "9"}, {"retries": -1}, {"batch_size": 0}, {"batch_size": True},
        {"columns": "topic"}, {"columns": 5}, {"columns": [1]}, {"on_failure": "zero"},
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(options):
    with pytest.raises(InputError):
        RemoteReward("http://127.0.0.1:1", **options)


@pytest.mark.parametrize("url", ["http://[", "http://a b", "http://x:99999999"])
def test_an_address_that_cannot_be_read_is_refused(url):
    with pytest.raises(InputError, match="the URL of a reward server"):
        RemoteReward(url)


def test_it_is_shown_with_its_address():
    assert repr(RemoteReward("http://127.0.0.1:1")) == "RemoteReward('http://127.0.0.1:1')"
    lenient = RemoteReward("http://127.0.0.1:1", name="judge", on_failure="none")
    assert repr(lenient) == "RemoteReward('http://127.0.0.1:1', name='judge', on_failure='none')"


def test_an_address_that_is_none_is_refused():
    with pytest.raises(InputError, match="the URL of a reward server"):
        RemoteReward("localhost:8000")


def test_a_reward_is_asked_for(capsys):
    assert main(["serve"]) == 2
    assert "a reward" in capsys.readouterr().err
