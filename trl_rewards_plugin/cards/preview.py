"""A card as a page for the browser, much as the Hub shows it: metadata as labels on top, pictures inside the page.

The Markdown is rendered by markdown-it with HTML turned off. Leaves out: the Hub's own widgets.
"""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from typing import Any

import yaml

from trl_rewards_plugin.cards.stamp import unstamped

_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_PICTURE = re.compile(r'(<img src=")([\w.-]+\.png)(")')
_LABELS = ("license", "language", "library_name", "pipeline_tag", "base_model", "datasets", "tags")
_STYLE = """
body { font: 16px/1.6 system-ui, "Helvetica Neue", "DejaVu Sans", sans-serif; color: #1f2937; background: #f3f4f6;
       margin: 0 }
main { max-width: 880px; margin: 32px auto; padding: 32px 48px; background: #fff; border: 1px solid #e5e7eb;
       border-radius: 12px }
h1 { font-size: 30px; margin: 8px 0 16px } h2 { font-size: 22px; margin: 40px 0 12px; padding-bottom: 6px;
     border-bottom: 1px solid #e5e7eb }
a { color: #1d4ed8; text-decoration: none } a:hover { text-decoration: underline }
ul.labels { list-style: none; padding: 0; margin: 0; display: flex; flex-wrap: wrap; gap: 6px; font-size: 13px }
ul.labels li { border: 1px solid #e5e7eb; border-radius: 8px; padding: 1px 9px; background: #f9fafb; color: #4b5563 }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; margin: 14px 0 }
th, td { border: 1px solid #e5e7eb; padding: 6px 11px; vertical-align: top; overflow-wrap: anywhere }
th { background: #f9fafb; text-align: left } tbody tr:nth-child(even) { background: #fcfcfd }
th[style*=right], td[style*=right] { white-space: nowrap }
blockquote { margin: 16px 0; padding: 6px 18px; border-left: 4px solid #f59e0b; background: #fffbeb }
code { background: #f3f4f6; border-radius: 5px; padding: 2px 5px; font: 13.5px/1.5 ui-monospace, "DejaVu Sans Mono",
       monospace }
pre { background: #111827; color: #e5e7eb; border-radius: 10px; padding: 16px 18px; overflow-x: auto }
pre code { background: none; padding: 0 } img { max-width: 100% }
"""


def preview_html(card: str, folder: Path | None = None) -> str:
    """A whole page. Pictures beside the card in `folder` are put into it, so that it can be moved and mailed."""
    from markdown_it import MarkdownIt

    front = _FRONT.match(card)
    values = yaml.safe_load(front[1]) if front else {}
    body = unstamped(card[front.end() :] if front else card)
    # HTML stays off: the card has none of its own, and what a model wrote must not become any.
    page = MarkdownIt("commonmark", {"html": False}).enable("table").render(body)
    if folder is not None:
        page = _PICTURE.sub(lambda found: found[1] + _inlined(folder / found[2], found[2]) + found[3], page)
    title = html.escape(re.sub(r"<[^>]*>", "", _first_heading(page)))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{_labels(values)}\n{page}</main>\n</body>\n</html>\n"
    )


def _inlined(path: Path, name: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else name


def _first_heading(page: str) -> str:
    found = re.search(r"<h1>(.*?)</h1>", page)
    return html.unescape(found[1]) if found else "Model card"


def _labels(values: dict[str, Any]) -> str:
    items = []
    for key in _LABELS:
        told = values.get(key) or []
        for value in told if isinstance(told, list) else [told]:
            name = "" if key == "tags" else f"{key.removesuffix('s').replace('_', ' ')}: "
            items.append(f"<li>{html.escape(f'{name}{value}')}</li>")
    return f'<ul class="labels">{"".join(items)}</ul>' if items else ""
