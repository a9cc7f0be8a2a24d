import asyncio
import functools
import json
import math
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy
import pytest
import torch
from transformers import pipeline

from tests.rewards.judges import judge
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.input_checks import check_reward_funcs
from trl_rewards_plugin.rewards import ClassifierReward, MultiClassifierReward, event_loop
from trl_rewards_plugin.rewards.functions import CallableReward


def returning(value):
    def odd(completions, **kwargs):
        return value

    return odd


@pytest.mark.parametrize(
    "value",
    [[1, 2.5], (True, 2.5), torch.tensor([1.0, 2.5]), numpy.array([1.0, 2.5]), [numpy.float32(1), torch.tensor(2.5)]],
)
def test_every_usual_form_of_a_list_of_numbers_is_read(value):
    assert MultiClassifierReward([returning(value)])(["a", "b"]) == [1.0, 2.5]


@pytest.mark.parametrize(
    ("value", "found"), [([1.0], "1"), ([1.0] * 3, "3"), (None, "a NoneType"), (1.0, "a float"), ("ab", "2")]
)
def test_a_wrong_count_is_refused_with_the_name(value, found):
    with pytest.raises(
        InputError, match=rf"2 scores from reward 'odd'[\s\S]*{found}; it was called on 2 comp[\s\S]*'first text'"
    ):
        MultiClassifierReward([returning(value)])(["first text", "b"])


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e39, 10**400, "1.0", "high", [1.0], object()])
def test_invalid_scores_are_refused_with_the_offending_text(value):
    with pytest.raises(InputError, match=r"from reward 'odd'[\s\S]*for 'the second'"):
        MultiClassifierReward([returning([1.0, value])])(["a", "the second"])


def test_what_a_reward_raises_is_not_a_score():
    def failing(completions, **kwargs):
        return [1.0 / len(text) for text in completions]

    with pytest.raises(RuntimeError, match=r"'failing' raised ZeroDivisionError.*2 completions.*'ab'") as error:
        MultiClassifierReward([failing])(["ab", ""])
    assert isinstance(error.value.__cause__, ZeroDivisionError)


async def async_shouting(completions, **kwargs):
    return [float(text.isupper()) for text in completions]


@pytest.mark.parametrize("combined", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_failure_shows_what_the_function_was_given(is_async, combined):
    def shouting(completions, **kwargs):
        return [float(text.isupper()) for text in completions]

    reward = CallableReward(async_shouting if is_async else shouting, name="shouting")
    chat = [[{"role": "assistant", "content": "Hi."}], [{"role": "assistant", "content": "Ho."}]]
    given = r"'shouting' raised AttributeError.*the first of them \[{'role': 'assistant', 'content': 'Hi\.'}\]"
    with pytest.raises(RuntimeError, match=given):
        (MultiClassifierReward([reward]) if combined else reward)(completions=chat)


def test_an_invalid_score_of_chat_messages_shows_them_cut_short():
    chat = [[{"role": "assistant", "content": "x" * 300}]]
    with pytest.raises(InputError, match=r"inf for \[{'role': 'assistant', 'content': 'x+\.\.\.\n"):
        CallableReward(returning([math.inf]))(chat)


def test_a_failure_on_no_texts_is_reported():
    with pytest.raises(RuntimeError, match="no texts at all"):
        MultiClassifierReward([lambda: [][0]])([])


class Scorer:
    def __call__(self, completions, **kwargs):
        return [7.0] * len(completions)


class AsyncScorer:
    async def __call__(self, completions, **kwargs):
        return [7.0] * len(completions)


async def async_reward(completions, **kwargs):
    return [7.0] * len(completions)


def test_a_callable_object_is_named_by_its_class():
    assert MultiClassifierReward([Scorer()]).score(["a"]).components["Scorer"].tolist() == [7.0]
    assert MultiClassifierReward([lambda completions, **_: [1.0]]).component_names() == ["lambda"]
    assert "Scorer" in repr(MultiClassifierReward([Scorer()]))


def test_a_partial_is_named_by_its_function():
    assert CallableReward(functools.partial(async_reward, extra=1)).name == "async_reward"
    assert CallableReward(async_reward, name="judge").component_names() == ["judge"]
    with pytest.raises(InputError, match="letters, digits"):
        CallableReward(async_reward, name="a judge")


# --- columns ---


def test_a_function_gets_what_it_names():
    def copies(completions, source):
        return [float(text == one) for text, one in zip(completions, source, strict=True)]

    def has_default(*, completions, missing=2.0):
        return [missing] * len(completions)

    def wants_nothing():
        return [1.0, 1.0]

    reward = MultiClassifierReward([copies, has_default, wants_nothing])
    called = reward(prompts=["p", "q"], completions=["a", "b"], completion_ids=[[1], [2]], source=["a", "c"])
    assert called == [4.0, 3.0]


def test_a_missing_column_is_refused_before_anything_is_scored():
    calls = []

    def first(completions, **kwargs):
        calls.append(completions)
        return [1.0]

    def second(completions, source, **kwargs):
        return [1.0]

    message = (
        r"column 'source', which reward 'second' asks for[\s\S]*only prompts, completions, sources"
        r"[\s\S]*'sources'\? add it to the data set"
    )
    with pytest.raises(InputError, match=message):
        MultiClassifierReward([first, second])(["a"], sources=["b"])
    assert calls == []


def test_a_function_that_takes_nothing_by_name_is_refused():
    def positional(completions, /):
        return [1.0]

    with pytest.raises(InputError, match=r"by name[\s\S]*positional\(completions, /\)"):
        CallableReward(positional)


def test_a_function_without_a_signature_gets_everything():
    # Some functions written in C have no signature; dict is one that takes any keyword.
    with pytest.raises(InputError, match="1 scores from reward 'dict'"):
        CallableReward(dict)(["a"], source=["b"])


# --- async ---


def test_async_rewards_run_together_and_beside_the_others():
    together = threading.Barrier(3)

    async def one(completions):
        await asyncio.to_thread(together.wait, 30)
        return [1.0] * len(completions)

    class Two:
        async def __call__(self, completions, **kwargs):
            await asyncio.to_thread(together.wait, 30)
            return [20.0, None]

    def plain(completions):
        together.wait(30)
        return [300.0] * len(completions)

    # Each waits for both others: none returns before all have begun.
    scores = MultiClassifierReward([one, plain, Two()]).score(["a", "b"])
    assert scores.total.tolist() == [321.0, 301.0]
    assert list(scores.components) == ["one", "plain", "Two"]


def test_an_async_component_alone_is_a_plain_reward():
    reward = MultiClassifierReward([async_reward, AsyncScorer()])
    assert reward.component("async_reward")(completions=["a"], prompts=["p"]) == [7.0]
    assert reward.component("AsyncScorer").score(["a"]).total.tolist() == [7.0]


def test_async_rewards_run_inside_a_running_event_loop():
    reward = MultiClassifierReward([async_reward])

    async def trainer():
        return reward(["a"])

    assert asyncio.run(trainer()) == [7.0]


def test_what_a_reward_keeps_between_calls_stays_on_one_loop():
    loops = []

    async def judge(completions):
        loops.append(asyncio.get_running_loop())
        return [1.0]

    reward = MultiClassifierReward([judge])
    assert reward(["a"]) == reward(["a"]) == [1.0]
    assert loops[0] is loops[1]
    assert loops[0].is_running()


def test_eight_threads_call_at_once():
    reward = MultiClassifierReward([async_reward, Scorer()])
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(reward, [["a"]] * 64)) == [[14.0]] * 64


def test_what_an_async_reward_raises_is_not_a_score_and_ends_the_others():
    ended = threading.Event()

    async def endless(completions):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def broken(completions):
        raise KeyError("no judge")

    with pytest.raises(RuntimeError, match=r"'broken' raised KeyError: 'no judge'.*1 completion,.*'ab'") as error:
        MultiClassifierReward([endless, broken])(["ab"])
    assert isinstance(error.value.__cause__, KeyError)
    assert ended.wait(30)


def test_what_a_plain_reward_raises_ends_the_async_ones():
    begun, ended = threading.Event(), threading.Event()

    async def endless(completions):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def broken(completions):
        begun.wait(30)
        raise ValueError

    with pytest.raises(RuntimeError, match="'broken' raised"):
        MultiClassifierReward([endless, broken])(["ab"])
    assert ended.wait(30)


async def returns_too_few(completions):
    return [1.0]


def test_what_an_async_reward_returns_is_checked():
    with pytest.raises(InputError, match=r"2 scores from reward 'returns_too_few'[\s\S]*'first'"):
        MultiClassifierReward([returns_too_few])(["first", "second"])


def test_a_plain_function_that_returns_a_coroutine_is_refused():
    def forgets(completions):
        return async_reward(completions)

    with pytest.raises(InputError, match=r"a coroutine[\s\S]*async def"):
        MultiClassifierReward([forgets])(["a"])


def test_a_call_that_would_wait_for_itself_is_refused():
    inner = MultiClassifierReward([async_reward], name="inner")

    async def outer(completions):
        return inner(completions)

    async def off_the_loop(completions):
        return await asyncio.to_thread(inner, completions)

    with pytest.raises(RuntimeError, match=r"asyncio\.to_thread"):
        MultiClassifierReward([outer])(["a"])
    assert MultiClassifierReward([off_the_loop])(["a"]) == [7.0]


def test_a_forked_child_has_a_loop_of_its_own():
    loop = event_loop.background_loop()
    assert event_loop.background_loop() is loop
    # As the child sees it: the thread of the parent is not there.
    owner, event_loop._owner = event_loop._owner, -1
    try:
        assert event_loop.background_loop() is not loop
    finally:
        event_loop._loop.call_soon_threadsafe(event_loop._loop.stop)
        event_loop._loop, event_loop._owner = loop, owner


# --- a remote judge, over HTTP ---


class Judge(BaseHTTPRequestHandler):
    def do_POST(self):
        pair = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(500 if pair["completion"] == "crash" else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"score": len(pair["prompt"]) + len(pair["completion"])}).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def judge_url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class RemoteJudge:
    """What a user writes around a judge that answers over HTTP."""

    def __init__(self, url):
        self.url = url
        self.__name__ = "remote_judge"

    async def __call__(self, prompts, completions):
        pairs = zip(prompts, completions, strict=True)
        return await asyncio.gather(*(asyncio.to_thread(self.ask, *pair) for pair in pairs))

    def ask(self, prompt, completion):
        body = json.dumps({"prompt": prompt, "completion": completion}).encode()
        try:
            with urllib.request.urlopen(self.url, data=body, timeout=30) as answer:
                return json.load(answer)["score"]
        except urllib.error.HTTPError as error:
            error.close()
            raise


def test_a_remote_judge_scores_and_its_failure_stops(judge_url):
    reward = MultiClassifierReward([RemoteJudge(judge_url), Scorer()], [1.0, 0.5])
    assert reward(prompts=["p", "qq"], completions=["abc", ""]) == [4 + 3.5, 2 + 3.5]
    with pytest.raises(RuntimeError, match=r"'remote_judge' raised HTTPError: HTTP Error 500.*2 completions"):
        reward(prompts=["p", "q"], completions=["fine", "crash"])


def test_a_reward_that_exits_is_a_failure_and_not_the_end_of_the_program():
    def leaving(completions, **kwargs):
        sys.exit()

    async def leaving_later(completions, **kwargs):
        sys.exit(3)

    for function in (leaving, leaving_later):
        with pytest.raises(RuntimeError, match=rf"{function.__name__}' raised [\s\S]*SystemExit"):
            MultiClassifierReward([function])(completions=["ab"])


# --- callables that are no functions ---


class CountsColumns:
    def __call__(self, completions, **columns):
        return [float(len(columns)) for _ in completions]


class Pipe:
    def __call__(self, inputs, **kwargs):
        return [{"label": "a", "score": 1.0} for _ in inputs]


class SetFitLike:
    def __call__(self, inputs):
        return [0 for _ in inputs]

    def predict_proba(self, inputs):
        return [[0.25, 0.75] for _ in inputs]


def test_a_callable_object_is_a_reward_and_a_column_called_self_does_no_harm():
    reward = MultiClassifierReward([CountsColumns()])
    assert reward(completions=["a"], prompts=["p"], **{"self": [1], "total": [2]}) == [2.0]  # prompts, total
    assert reward.score(["a"], **{"self": [1]}).total.tolist() == [1.0]


@pytest.mark.parametrize("model", [SetFitLike(), torch.nn.Linear(1, 1), "owner/judge", Path("judge"), 3])
def test_a_model_is_refused_with_how_to_wrap_it_alike_by_rewards_and_trainer(model):
    steps = []
    for refuse in (CallableReward, lambda given: check_reward_funcs(given, None)):
        with pytest.raises(InputError, match="wrap it: ") as caught:
            refuse(model)
        steps.append((caught.value.found, caught.value.next_step))
    assert steps[0] == steps[1]
    assert ("predict_proba(completions)" in steps[0][1]) == isinstance(model, SetFitLike)


def test_an_object_that_reads_its_texts_under_another_name_says_so_when_it_is_called():
    with pytest.raises(InputError, match=r"'inputs'[\s\S]*wrap an object"):
        MultiClassifierReward([Pipe()])(["a"])


def test_a_pipeline_as_the_model_of_a_classifier_reward_is_refused_with_what_to_pass():
    pipe = pipeline("text-classification", model=str(judge()), device="cpu")
    with pytest.raises(InputError, match=r"pipe\.model, tokenizer=pipe\.tokenizer"):
        ClassifierReward(pipe, label="good")
    with pytest.raises(InputError, match=r"pipe\.model, tokenizer=pipe\.tokenizer"):
        MultiClassifierReward([pipe])
    with pytest.raises(InputError, match=r"pipe\.model, tokenizer=pipe\.tokenizer"):
        check_reward_funcs(pipe, None)
    reward = ClassifierReward(pipe.model, tokenizer=pipe.tokenizer, label="good", device="cpu")
    assert reward(["a"]) == pytest.approx(ClassifierReward(judge(), label="good", device="cpu")(["a"]), abs=1e-6)


def scaled(completions, factor):
    return [float(factor)] * len(completions)


def test_two_partials_of_one_function_are_told_apart_by_their_own_names():
    double, triple = functools.partial(scaled, factor=2), functools.partial(scaled, factor=3)
    with pytest.raises(InputError, match=r"f\.__name__ = 'other'"):
        MultiClassifierReward([double, triple])
    double.__name__, triple.__name__ = "double", "triple"
    assert MultiClassifierReward([double, triple]).component_names() == ["double", "triple"]


# --- attempts ---


class Flaky:
    """Fails `times` times, then scores."""

    __name__ = "flaky"

    def __init__(self, times, error=None):
        self.times, self.error, self.calls = times, error or ConnectionError("gone"), 0

    async def __call__(self, completions, **kwargs):
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return [1.0] * len(completions)


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited between attempts; none pass."""
    found = []

    async def sleep(seconds):
        found.append(seconds)

    monkeypatch.setattr(event_loop.asyncio, "sleep", sleep)
    monkeypatch.setattr(event_loop.random, "uniform", lambda low, high: 0.25 * high)
    return found


def test_an_async_function_is_called_again_after_growing_waits(waits, caplog):
    flaky = Flaky(8)
    assert MultiClassifierReward([CallableReward(flaky, retries=8)])(["a", "b"]) == [1.0, 1.0]
    assert flaky.calls == 9
    # 0.5, doubled, plus a quarter of half a second, 30 at most.
    assert waits == [0.625, 1.125, 2.125, 4.125, 8.125, 16.125, 30, 30]
    assert caplog.messages == ["reward 'flaky': ConnectionError: gone; trying again, up to 8 times"]


def test_after_the_last_attempt_the_run_stops_or_there_is_no_score(waits, caplog):
    with pytest.raises(RuntimeError, match="'flaky' raised ConnectionError: gone"):
        CallableReward(Flaky(3), retries=2)(["a"])
    reward = CallableReward(Flaky(3), retries=2, on_failure="none")
    assert MultiClassifierReward([reward, Scorer()]).score(["a"]).total.tolist() == [7.0]
    assert "ConnectionError: gone" in caplog.text
    assert "1 text gets no score" in caplog.text


@pytest.mark.parametrize("error", [InputError("a", "b", "c"), ImportError("a"), NameError("a")])
def test_a_refusal_and_a_name_that_is_missing_are_final(waits, error):
    flaky, on_failure = Flaky(3, error), "none" if isinstance(error, InputError) else "stop"
    with pytest.raises((InputError, RuntimeError), match="a"):
        CallableReward(flaky, retries=2, on_failure=on_failure)(["a"])
    assert (flaky.calls, waits) == (1, [])


def test_an_attempt_that_takes_too_long_has_failed():
    async def endless(completions):
        await asyncio.Event().wait()

    with pytest.raises(
        RuntimeError,
        match=r"'endless' raised TimeoutError: no scores within 0\.01 s.*; raise timeout= or",
    ):
        CallableReward(endless, timeout=0.01)(["a"])


def test_what_a_file_holds_of_an_async_function(tmp_path):
    reward = CallableReward(async_reward, timeout=9.0, retries=2, on_failure="none")
    path = f"{__name__}.async_reward"
    assert reward.entry() == {
        "name": "async_reward", "timeout": 9.0, "retries": 2, "on_failure": "none", "function": path,
    }  # fmt: skip
    MultiClassifierReward([reward]).save_preset(tmp_path / "reward.yaml")
    part = MultiClassifierReward.from_preset(tmp_path / "reward.yaml").rewards[0]
    assert (part.timeout, part.retries, part.on_failure) == (9.0, 2, "none")


@pytest.mark.parametrize(
    ("function", "settings", "said"),
    [
        (async_reward, {"timeout": 0}, "timeout above 0"),
        (async_reward, {"timeout": "30"}, "write 30 without quotes"),
        (async_reward, {"retries": -1}, "retries of at least 0"),
        (async_reward, {"on_failure": "zero"}, "on_failure as one of stop, none"),
        (returning([1.0]), {"retries": 1}, "an async function for timeout"),
    ],
)
def test_attempts_that_do_not_fit_are_refused(function, settings, said):
    with pytest.raises(InputError, match=said):
        CallableReward(function, **settings)
