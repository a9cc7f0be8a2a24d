import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from trl_rewards_plugin.cards import markdown

HOSTILE = [
    "---",
    "a | b || c",
    "```python\nprint()\n```",
    "`` ` ``",
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "![x](javascript:alert(1)) [y](http://evil.example)",
    "# head\n- list\n1. one",
    "$$x^2$$ \\(y\\)",
    "word " * 10_000,
    "\u202ereversed\u202c \u2067isolated\u2069 \u200f",
    "\x00\x1b[31m\ud800",
    "&lt;b&gt; &amp; &#42;",
    "www.example.com https://example.com",
]


def rendered(text):
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def visible(html):
    import html as entities

    return entities.unescape(re.sub(r"<[^>]*>", "", html)).strip()


@given(st.text() | st.sampled_from(HOSTILE))
def test_a_cell_shows_its_text_and_stays_in_its_table(text):
    page = rendered(markdown.table(["a", "b"], [[markdown.cell(text, 10**6), "next"]]))
    assert page.count("<td>") == 2
    assert "<td>next</td>" in page
    assert set(re.findall(r"</?(\w+)", page)) <= {"table", "thead", "tbody", "tr", "th", "td"}
    first = re.search(r"<td>(.*?)</td>", page, re.DOTALL)[1]
    assert visible(first) == (markdown.one_line(text) or "(nothing)")


@given(st.text() | st.sampled_from(HOSTILE))
def test_code_and_quotes_show_their_text_too(text):
    page = rendered(f"{markdown.quote(text, 10**6)}\n\nAnd {markdown.code(text)} here.")
    assert set(re.findall(r"</?(\w+)", page)) <= {"blockquote", "p", "code"}
    assert visible(page).startswith(markdown.one_line(text) or "(nothing)")
    assert visible(page).endswith(" here.")


@given(st.text())
def test_one_line_is_one_line_that_utf8_can_hold(text):
    line = markdown.one_line(text)
    assert len(line.splitlines()) <= 1
    assert line.encode("utf-8").decode("utf-8") == line


def test_long_text_is_cut_and_letters_of_any_script_stay():
    assert markdown.one_line("word " * 10_000, 20) == "word word word w ..."
    shalom = "\u05e9\u05dc\u05d5\u05dd"
    assert markdown.one_line(f"{shalom} \u202e{shalom}\u202c") == f"{shalom} {shalom}"


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("owner/name", True),
        ("o-w.n/n_a.m-e", True),
        ("data/rows.jsonl", False),
        ("data/rows.ndjson", False),
        ("data/ROWS.CSV", False),
        ("./models/mine", False),
        ("/tmp/x", False),
        ("a/b/c", False),
        ("bundled:x/y", False),
        ('own"er/name', False),
        ("name", False),
        ("", False),
        (None, False),
    ],
)
def test_hub_ids(name, is_one):
    assert markdown.is_hub_id(name) is is_one


def test_a_link_is_only_made_of_a_hub_id():
    assert markdown.link("me/x", "datasets/") == "[me/x](https://huggingface.co/datasets/me/x)"
    assert markdown.link("a](http://evil)|b") == "a&#93;(http&#58;//evil)&#124;b"
