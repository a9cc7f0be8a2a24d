"""The page as a browser would take it: well-formed, closed to the network, every chart with its data."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from tests.report.folders import LOG_ROWS, held_out_row, write_log, write_run
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.report.page import FOLDER, write_report
from trl_rewards_plugin.runs.layout import METRICS
from trl_rewards_plugin.runs.writing import write_json, write_table

SIDES = ("before", "after")
VOID = ("meta", "input", "br")
HOSTILE = [
    "<script>alert(1)</script>",
    "</div></article></main><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% include 'page.css' %}",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "x" * 50_000,
    "\x00\x08'\"&amp;",
]


class Page(HTMLParser):
    """Elements with their attributes and texts; fails where a tag is closed that is not open."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, _, texts in self.open:
            texts.append(data)

    def of(self, tag, kind=None):
        """(attributes, text) of each element."""
        return [
            (attributes, "".join(texts))
            for name, attributes, texts in self.elements
            if name == tag and (kind is None or kind in attributes.get("class", "").split())
        ]


def read(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def page(tmp_path):
    return read(write_report([write_run(tmp_path / "one")]))


def test_one_run_has_every_chart_with_its_data(page):
    assert [text for _, text in page.of("h1")] == ["Run one"]
    titles = [text for _, text in page.of("figcaption")]
    curves = ["Reward", "good", "kind", "KL to the reference", "Response length", "Entropy"]
    assert titles == ["reward", "good", "kind", *curves, "one"]
    assert len(page.of("svg")) == len(titles)
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes, _ in page.of("svg"))
    assert len(page.of("polyline", "mean")) == len(curves)  # the one evaluation is a point in reward against KL
    assert len(page.of("polyline", "bars")) == 2 * 3
    # Evaluated were the reward, one component, KL and length; the last two are reward against KL.
    assert len(page.of("circle", "dot")) == 4 + 2
    assert page.of("title")[0] == ({}, "Run one")


def test_outputs_carry_what_the_filter_reads(page):
    articles = [attributes for attributes, _ in page.of("article")]
    assert [each["data-step"] for each in articles] == ["1", "1", "2", "2"]
    assert {each["data-kind"] for each in articles} == {"train"}
    assert (articles[0]["data-reward"], articles[0]["data-run"]) == ("1.0", "0")
    script = page.of("script")[0][1]
    form = {attributes.get("name") for tag in ("select", "input") for attributes, _ in page.of(tag)}
    assert form == {"run", "step", "kind", "order", "text"}
    assert all(name in script for name in form)
    assert {attributes.get("id") for attributes, _ in page.of("form")} == {"filter"}
    assert "first of 1" in [text for _, text in page.of("div", "output")]


def test_outputs_stand_side_by_side_by_gain_and_long_prompts_are_folded(tmp_path):
    rows = [held_out_row(f"number {place}", after=float(place)) for place in range(7)]
    rows[6]["prompt"] = "Say it. " * 100
    page = read(write_report([write_run(tmp_path / "one", held_out=rows)]))
    pairs = [text.split("\n") for _, text in page.of("div", "pair")]
    titles = [next(line for line in lines if line).removesuffix(" one") for lines in pairs]
    # Before is 0.5 throughout; after 0 ... 6.
    assert titles == [
        "Best gain (+5.50)", "Second best gain (+4.50)", "Median gain (+2.50)", "Largest loss (-0.50)",
        "Another prompt (1)", "Another prompt (2)", "Another prompt (3)",
    ]  # fmt: skip
    outputs = [text for _, text in page.of("div", "output")]
    assert outputs[:2] == ["before number 6", "after number 6"]
    names = [text.split(" reward")[0] for attributes, text in page.of("p", "scores")][1:3]
    assert names == ["owner/model", "one"]
    assert [text[:7] for _, text in page.of("summary")][:2] == ["Say it.", "More pr"]
    assert page.of("summary")[0][0]["class"] == "prompt"  # as small and grey as one that is not folded
    assert "Sampled outputs before and after" in [text for _, text in page.of("h2")]


def test_an_evaluation_is_a_report_too(tmp_path):
    folder = tmp_path / "eval"
    folder.mkdir()
    gain = {"reward_gain": 0.25, "ci95": [0.1, 0.4], "n": 2, "share_improved": 1.0}
    scores = {"fluency": {"before": 0.5, "after": 0.75, "gain": gain}, "length": {"before": 2.0, "after": 3.0}}
    write_json(folder / "evaluation.json", {"before": "old/model", "after": "new/model", "n": 2, "metrics": scores})
    columns = {"prompt": ["p", "q"], "before": ["b1", "b2"], "after": ["a1", "a2"]}
    numbers = {"before fluency": [0.5, 0.5], "after fluency": [0.5, 1.0]}
    write_table(folder / "outputs.parquet", columns | numbers)
    path = write_report([folder])
    assert path == folder / "report.html"
    page = read(path)
    assert page.of("h1")[0][1] == "new/model compared with old/model"
    assert "eval2 outputs: new/model, compared with old/model. fluency: 0.500 → 0.750, +0.250" in page.of("li")[0][1]
    assert [text for _, text in page.of("figcaption")] == ["fluency"]
    assert "before: old/model" in page.of("h3")[0][1]
    rows = {text.strip().replace("\n", " ") for _, text in page.of("tr")}
    assert "fluency0.500 → 0.750, +0.250 (95% CI +0.100 to +0.400)" in rows
    assert "length2.000 → 3.000" in rows
    assert "held" not in "".join(text for _, text in page.of("section"))
    assert "sampled" not in "".join(text for _, text in page.of("section"))
    assert page.of("p", "scores")[0][1].startswith("Best gain in fluency (+0.50)")
    assert "Training" not in [text for _, text in page.of("h2")]
    assert page.of("div", "output")[0][1] == "b2"
    assert page.of("p", "scores")[1][1].split() == ["old/model", "fluency", "0.50"]
    # Of one side alone there is nothing to compare.
    write_json(
        folder / "evaluation.json", {"before": None, "after": "m", "n": 2, "metrics": {"fluency": {"after": 1.0}}}
    )
    write_table(folder / "outputs.parquet", {"after": ["a1", "a2"], "after fluency": [0.5, 1.0]})
    page = read(write_report([folder]))
    assert page.of("h1")[0][1] == "Evaluation of m"
    assert "2 outputs: m." in page.of("li")[0][1]


@pytest.fixture
def make_evaluation(tmp_path):
    def make(scores, **more):
        folder = tmp_path / "eval"
        folder.mkdir(exist_ok=True)
        metrics = {name: {"before": 0.0, "after": 1.0} for name in scores}
        values = {"before": "./old.txt", "after": "./new.jsonl (column output)", "n": 2, "metrics": metrics, **more}
        write_json(folder / "evaluation.json", values)
        columns = {
            f"{side} {name}": each for name, pair in scores.items() for side, each in zip(SIDES, pair, strict=True)
        }
        write_table(folder / "outputs.parquet", {"before": ["b1", "b2"], "after": ["a1", "a2"], **columns})
        return folder

    return make


def test_an_evaluation_first_says_whether_it_met_its_bars(make_evaluation):
    bars = ["reward at least 0.5", "nothing worse than before"]
    folder = make_evaluation({}, bars=bars, failed=[])
    assert (
        "Passed: reward at least 0.5, nothing worse than before. 2 outputs"
        in read(write_report([folder])).of("li")[0][1]
    )
    failed = ["reward is 0.257, under 0.5", "rouge1, rouge2: worse than before: the interval of its gain excludes 0"]
    page = read(write_report([make_evaluation({}, bars=bars, failed=failed, references="the prompts")]))
    assert f"Failed: {'; '.join(failed)}. 2 outputs" in page.of("li")[0][1]
    assert "old.txt. References: the prompts." in page.of("li")[0][1]
    assert page.of("h1")[0][1] == "new.jsonl compared with old.txt"


def test_an_evaluation_ranks_by_the_reward_and_draws_equal_scores_once(make_evaluation):
    rouge = ([0.5, 0.5], [0.5, 0.25])
    folder = make_evaluation({"rougeL": rouge, "rougeLsum": rouge, "tiny reward": ([0.0, 0.0], [1.0, 2.0])})
    page = read(write_report([folder]))
    assert [text for _, text in page.of("figcaption")] == ["rougeL and rougeLsum", "tiny reward"]
    assert page.of("p", "scores")[0][1].startswith("Best gain in tiny reward (+2.00)")
    assert "share_above" not in page.of("section")[0][1]
    folder = make_evaluation({"fluency share_above": ([0.5, 0.5], [0.75, 0.75])})
    assert "share_above: share of the outputs that score above" in read(write_report([folder])).of("section")[0][1]
    assert " ".join(page.of("p", "scores")[1][1].split()) == "old.txt rougeL 0.50 rougeLsum 0.50 tiny reward 0.00"


def test_an_evaluation_is_no_run(make_evaluation, tmp_path):
    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two")]
    page = read(write_report([*runs, make_evaluation({})], tmp_path / "all.html"))
    assert page.of("h1")[0][1] == "2 runs and 1 evaluation compared"
    sentence = "Those of a run are sampled for held-out prompts, before and after training. Dashed: means."
    assert f"How outputs for the same prompts score before and after. {sentence}" in [
        text for _, text in page.of("p", "quiet")
    ]


def test_what_was_counted_comes_first_and_dots_are_explained_where_there_are_any(tmp_path):
    folder = write_run(tmp_path / "one")
    values = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    values["counts"] = {"trail off": {"before": 0.604, "after": 0.01}}
    write_json(folder / METRICS, values)
    page = read(write_report([folder]))
    text = page.of("li")[0][1]
    assert text.index("60% → 1% of the sampled outputs trail off") < text.index("Reward 2.000")
    curves = next(text for attributes, text in page.of("section") if attributes["id"] == "curves")
    assert "Dots: held-out prompts." in curves
    write_log(folder, LOG_ROWS[:4])
    assert "Dots" not in write_report([folder]).read_text(encoding="utf-8")
    assert "samples" in [attributes.get("id") for attributes, _ in page.of("section")]
    assert "Show some of them" in [text for _, text in page.of("summary")]


def test_seeds_are_a_mean_with_its_standard_deviation(tmp_path):
    folders = [write_run(tmp_path / name) for name in ("a", "b")]
    assert "standard deviation" not in write_report(folders, tmp_path / "r.html").read_text(encoding="utf-8")
    for folder, before in zip(folders, (0.6, 0.5), strict=True):
        told = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        told["counts"] = {"trail off": {"before": before, "after": 0.0}}
        write_json(folder / METRICS, told)
    told["after"]["reward"], told["after"]["good"], told["seed"] = 4.0, 4.0, 4
    told["component_gain"]["good"]["ci95"] = [-0.1, 2.1]
    write_json(folders[1] / METRICS, told)
    text = write_report(folders, tmp_path / "r.html").read_text(encoding="utf-8")
    # 3 and 4: 3.5, and the root of a half.
    result, meaning, *_ = [" ".join(text.split()) for _, text in read(tmp_path / "r.html").of("p")]
    assert result.startswith("Over 2 seeds: reward 2.000 ± 0.000 → 3.500 ± 0.707, gain +1.000 ± 0.000 Sampled")
    assert "outputs that trail off: 55% ± 7% → 0% ± 0% By" in result
    assert "CI, good: better in 1, no clear change in 1 of 2 runs; kind:" in result
    assert "Seed: the number" in result
    assert "Held-out prompts: those that the model was not trained on." in text
    assert "each seed samples its outputs anew" in result
    assert meaning.startswith("Reward: 1 x good + 0.5 x kind, as classifiers and functions score each output; higher")
    rows = [text.strip().split("\n")[0] for _, text in read(tmp_path / "r.html").of("tr")]
    assert rows[0].endswith("mean ± sd over 2 seedsab")
    assert "Reward2.000 ± 0.000 → 3.500 ± 0.7072.000 → 3.0002.000 → 4.000" in rows
    assert "Reward, greedy2.000 ± 0.000 → 3.000 ± 0.0002.000 → 3.0002.000 → 3.000" in rows
    assert "Sampled outputs that trail off55% ± 7% → 0% ± 0%60% → 0%50% → 0%" in rows
    assert "KL to the reference, nats1.500 ± 0.0001.5001.500" in rows
    assert "Seed\N{EN DASH}34" in rows
    places = [text.index(part) for part in ("Over 2 seeds", 'id="numbers"', 'id="pairs"', 'id="curves"')]
    assert places == sorted(places)


def test_rewards_whose_names_differ_in_case_alone_are_both_described(tmp_path):
    parts = {name: [{"name": name, "weight": 1.0}] for name in ("polite", "Polite")}
    folders = [write_run(tmp_path / f"run-{name}", made_of={"rewards": one}) for name, one in parts.items()]
    meanings = [text for _, text in read(write_report(folders, tmp_path / "r.html")).of("p")]
    for name in parts:
        assert any(text.startswith(f"Reward of run-{name}: 1 x {name}, as") for text in meanings)


def test_several_runs_share_the_curves(tmp_path, monkeypatch):
    folders = [write_run(tmp_path / "one"), write_run(tmp_path / "two", learning_rate=2e-5)]
    monkeypatch.chdir(tmp_path)
    path = write_report(folders)
    assert path.resolve() == tmp_path / "report.html"
    page = read(path)
    assert [text for _, text in page.of("h1")] == ["2 runs compared"]
    assert [attributes["class"] for attributes, _ in page.of("polyline", "mean")][:2] == ["mean s0", "mean s1"]
    assert len(page.of("figure")) == 6 + 2 * 3 + 2
    rows = {text.split("\n")[0] for _, text in page.of("tr")}
    assert "learning_rate1e-052e-05" in rows
    assert "Reward2.000 → 3.0002.000 → 3.000" in rows


def test_equal_runs_differ_in_no_setting(tmp_path):
    page = read(
        write_report([write_run(tmp_path / "one"), write_run(tmp_path / "two")], tmp_path / "new" / "page.html")
    )
    assert "None, according to the runs' config.yaml." in [text for _, text in page.of("p")]


def test_gains_on_different_prompts_are_warned_of(tmp_path):
    other = [held_out_row() | {"prompt": "Another."}]
    page = read(
        write_report([write_run(tmp_path / "a"), write_run(tmp_path / "b", held_out=other)], tmp_path / "r.html")
    )
    assert "different held-out prompts" in page.of("p", "caveat")[0][1]


def test_an_unfinished_run_has_its_curves(tmp_path):
    write_log(tmp_path, LOG_ROWS[:2])
    page = read(write_report([tmp_path]))
    assert "Not finished: 2 rollouts so far" in page.of("li")[0][1]
    assert len(page.of("figure")) == 7
    assert (page.of("table"), page.of("article"), page.of("script")) == ([], [], [])


def test_a_run_of_trl_has_its_curves_by_step_and_the_total_is_no_component(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    log = [
        {"step": step, "reward": 0.5, "rewards/all/mean": 0.5, "rewards/good/mean": 1.0, "kl": 0.1, "entropy": 2.0}
        for step in (1, 2)
    ]
    write_json(tmp_path / "checkpoint-2" / "trainer_state.json", {"log_history": log})
    path = write_report([tmp_path])
    page, text = read(path), path.read_text(encoding="utf-8")
    assert page.of("li")[0][1].endswith("A TRL run, 2 steps: curves and outputs only.")
    assert [title for _, title in page.of("figcaption")] == ["Reward", "good", "Entropy"]
    assert ">mean of a step</text>" in text
    assert not re.search("episode|rollouts|Not finished", text.split("<main>")[1])
    both = read(write_report([tmp_path, write_run(tmp_path / "ours")], tmp_path / "both.html"))
    assert next(text for _, text in both.of("tr") if text.startswith("Seed")) == "Seed\N{EN DASH}3"
    assert "not yet" not in both.of("main")[0][1]


def test_a_single_component_is_drawn_once(tmp_path):
    row = held_out_row()
    rows = [row | {key: row[f"{key.rpartition('_')[0]}_reward"] for key in row if key.endswith(("_good", "_kind"))}]
    page = read(write_report([write_run(tmp_path, held_out=rows)]))
    assert [text for _, text in page.of("figcaption")][:2] == ["reward, good and kind", "Reward"]


def test_a_run_from_the_hub_has_its_numbers(tmp_path):
    folder = write_run(tmp_path)
    for name in ("log.jsonl", "completions.parquet"):
        (folder / name).unlink()
    page = read(write_report([folder]))
    assert any("No log in" in text for _, text in page.of("p"))
    assert len(page.of("figure")) == 0
    assert len(page.of("table")) == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_model_wrote_stays_text(tmp_path, text):
    folder = write_run(tmp_path / "one", held_out=[held_out_row(text)], model=text[:100])
    path = write_report([folder])
    page = read(path)
    assert len(page.of("script")) == 1
    assert page.of("img") == []
    assert len(page.of("article")) == 4
    shown = page.of("div", "output")[0]
    assert shown[0]["dir"] == "auto"
    assert shown[1].startswith("before " + re.sub("[\x00\x08]", "\N{REPLACEMENT CHARACTER}", text)[:1000])
    assert path.stat().st_size < 100_000


def test_a_folder_may_have_any_name(tmp_path):
    page = read(write_report([write_run(tmp_path / "<b>&'\"")]))
    assert page.of("h1")[0][1] == "Run <b>&'\""


def test_nothing_is_loaded_and_no_other_script_runs(tmp_path):
    path = write_report([write_run(tmp_path)])
    page, text = read(path), path.read_text(encoding="utf-8")
    policy = page.of("meta")[1][0]["content"]
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        digest = hashlib.sha256(page.of(tag)[0][1].encode()).digest()
        assert f"{tag}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert not re.search(r"https?://|//\w|url\(|@import", text)
    loading = {"src", "href", "srcset", "action", "style"}
    assert not any(loading & attributes.keys() for _, attributes, _ in page.elements)
    assert not any(name.startswith("on") for _, attributes, _ in page.elements for name in attributes)


def luminance(colour):
    """Relative luminance of "#rrggbb" (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_and_lines_stand_out_from_their_ground(scheme):
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    part = style.split("@media (prefers-color-scheme: dark)")[scheme == "dark"]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", part.split("* {")[0]))
    for ground in ("page", "card"):
        assert contrast(colours["ink"], colours[ground]) >= 7
        assert contrast(colours["quiet"], colours[ground]) >= 4.5
        for name in ("before", *(f"c{index}" for index in range(8))):
            assert contrast(colours[name], colours[ground]) >= 3, name


def test_a_held_out_reward_is_drawn_beside_the_reward(tmp_path):
    rows = [{"step": step, "eval_reward": 1.0, "eval_held_out_reward": 0.5} for step in (2, 4)]
    folder = write_run(tmp_path / "one")
    write_log(folder, [*LOG_ROWS, *rows])
    page = read(write_report([folder]))
    assert [text for _, text in page.of("figcaption")][3:6] == ["Reward", "Held-out reward", "good"]


def test_a_run_that_knows_what_its_kl_could_have_bought_shows_it(tmp_path):
    folder = write_run(tmp_path / "one")
    path = folder / METRICS
    values = json.loads(path.read_text(encoding="utf-8"))
    values["reward_at_kl"] = {"tilted": [[0.0, 1.0], [1.0, 2.0]], "best_of_n": [[0.0, 1.0], [0.19, 1.1]]}
    path.write_text(json.dumps(values), encoding="utf-8")
    page = read(write_report([folder, write_run(tmp_path / "two")], tmp_path / "both.html"))
    ((_, text),) = [found for found in page.of("section") if found[0].get("id") == "reward-kl"]
    assert "the best possible reward at that KL, up to where best of n passes it" in text
    assert "Higher at the same KL is better; a run under the dashed line has gained less" in text
    # Of the other run its path alone: its evaluation, at 1.25 nats.
    assert [caption for _, caption in page.of("figcaption")][-2:] == ["one", "two"]
    assert text.count("best possible, estimated") == 2  # at its two dots
    assert text.count("3 at 1.5 nats") >= 2  # the result
    assert text.count("1.75 at 1.25 nats") >= 2
    values["reward_at_kl"]["tilted"] = [[0.0]]
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(InputError, match=r"tilted\[0\]|reward_at_kl|metrics.json"):
        write_report([folder])
