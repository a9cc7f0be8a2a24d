import pytest

from trl_rewards_plugin.hub.stamp import has_untouched_text, is_untouched, stamped, unstamped

CARD = "---\ntags: [a]\n---\n# Title\n\nText.\n"


def test_what_was_stamped_is_untouched_until_a_letter_changes():
    card = stamped(CARD)
    assert is_untouched(card)
    assert unstamped(card) == CARD
    assert stamped(card) == card
    assert not is_untouched(card.replace("Text.", "My text."))
    assert not is_untouched(CARD)


@pytest.mark.parametrize("change", [lambda text: text.replace("\n", "\r\n"), str.rstrip])
def test_line_endings_do_not_count_as_edits(change):
    assert is_untouched(change(stamped(CARD)))


def test_edits_of_the_header_are_told_from_those_of_the_text():
    card = stamped(CARD)
    for old, new, text_is_ours in (
        ("[a]", "[a]\nlicense: mit", True),
        ("Text.", "Mine.", False),
        (CARD[:18], "", False),
    ):
        edited = card.replace(old, new)
        assert not is_untouched(edited)
        assert has_untouched_text(edited) is text_is_ours


def test_a_stamp_in_the_middle_is_ignored():
    assert not is_untouched(stamped(CARD) + "more\n")


def test_an_empty_or_torn_card_is_nobodys_edit():
    card = stamped(CARD)
    assert is_untouched("")
    assert is_untouched(card[:20], card)
    assert not is_untouched(card[:20])
    assert not is_untouched(card[:20] + "mine", card)
