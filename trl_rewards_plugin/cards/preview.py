"""A card as an HTML page, much as the Hub shows it: metadata as labels on top, pictures inside, no widgets."""

import base64
import html
import re
from pathlib import Path

import yaml
from markupsafe import Markup

from trl_rewards_plugin.charts.svg import environment_of
from trl_rewards_plugin.hub.stamp import unstamped

_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_LABELS = ("license", "language", "library_name", "pipeline_tag", "base_model", "datasets", "tags")


def preview_html(card: str, folder: Path | None = None) -> str:
    """A whole page. Pictures beside the card in `folder` are embedded, so that the page can be moved and mailed."""
    from markdown_it import MarkdownIt

    front = _FRONT.match(card)
    body = unstamped(card[front.end() :] if front else card)
    # HTML stays off: the card has none of its own, and what a model wrote must not become any.
    page = MarkdownIt("commonmark", {"html": False}).enable("table").render(body)
    for name in re.findall(r'<img src="([\w.-]+\.png)"', page):
        if folder is not None and (folder / name).is_file():
            picture = base64.b64encode((folder / name).read_bytes()).decode()
            page = page.replace(f'<img src="{name}"', f'<img src="data:image/png;base64,{picture}"')
    heading = re.search(r"<h1>(.*?)</h1>", page)
    title = html.unescape(re.sub(r"<[^>]*>", "", heading[1])) if heading else "Model card"
    values, labels = yaml.safe_load(front[1]) if front else {}, []
    for key in _LABELS:
        found = values.get(key) or []
        name = "" if key == "tags" else f"{key.removesuffix('s').replace('_', ' ')}: "
        labels += [f"{name}{value}" for value in (found if isinstance(found, list) else [found])]
    template = environment_of(Path(__file__).parent).get_template("preview.html.jinja")
    return template.render(title=title, labels=labels, page=Markup(page))
