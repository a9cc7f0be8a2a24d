import re

from trl_rewards_plugin.cards.preview import preview_html
from trl_rewards_plugin.hub.stamp import stamped

CARD = stamped(
    "---\nlicense: mit\ntags: ['<b>']\n---\n# A & B\n\n![curve](c.png) ![other](gone.png)\n\n| a |\n| --- |\n| 1 |\n"
)


def test_a_page_with_labels_table_and_its_pictures_inside(tmp_path):
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    page = preview_html(CARD, tmp_path)
    assert "<title>A &amp; B</title>" in page
    assert "<li>license: mit</li><li>&lt;b&gt;</li>" in page
    assert "<td>1</td>" in page
    assert 'src="data:image/png;base64,iVBORw=="' in page
    assert 'src="gone.png"' in page
    assert "written by trl_rewards_plugin" not in page


def test_html_in_a_card_is_text_and_a_card_may_be_bare():
    page = preview_html("<script>alert(1)</script>\n")
    assert "<script>" not in page
    assert "<title>Model card</title>" in page
    assert not re.search(r"<ul class", page)
