"""A run, a saved model or a metric on its way to the Hub: its card is rendered, then everything uploaded at once.

Leaves out: what belongs to an upload, the network (`hub/`), the Trainer's own hooks (`callback.py`).
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, get_token

from trl_rewards_plugin.cards.card_data import RewardModelCardData, card_data_from_folder, has_own_texts
from trl_rewards_plugin.cards.markdown import cell, quote
from trl_rewards_plugin.cards.model_card import header_edits, prompt_literal, render_with_edits, with_name
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.files import UploadFile, is_space, select_model, select_space
from trl_rewards_plugin.hub.plan import UploadPlan, check_card, check_content, check_name
from trl_rewards_plugin.hub.remote import Repository
from trl_rewards_plugin.hub.stamp import has_untouched_text, header_of, is_untouched, stamped, unstamped, with_header
from trl_rewards_plugin.hub.upload import full_name, upload
from trl_rewards_plugin.runs.layout import CARD, is_finished_run
from trl_rewards_plugin.text import one_line


def push_to_hub(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
    api: Any = None,
    revision: str | None = None,
    include_completions: bool = False,
    overwrite_card: bool = False,
    commit_message: str | None = None,
    echo: Callable[[str], None] = lambda text: None,
) -> str:
    """Uploads a run folder, a saved model or a metric folder in one commit; repeating it uploads nothing.

    Safetensors only, never training state. A failed upload leaves the repository unchanged and can be repeated.

    Args:
        folder: The run folder, the checkpoint, or the metric's folder, which becomes a Space.
        repo_id: `owner/name`, or the name of one of yours; created if it does not exist.
        private: For a new repository; None: the owner's default. An existing one keeps its visibility, and a public
            one is refused if this is True.
        token: For the Hub; None: the one that is logged in.
        create_pr: Open a pull request instead of committing.
        api: A `huggingface_hub.HfApi`, for another endpoint; it brings its own token.
        revision: Branch to commit to, created if it does not exist; None: the main one.
        include_completions: Upload the held-out prompts and outputs too, in a file and, if the prompts are your own,
            in the card. (Those of a public data set are in the card anyway.)
        overwrite_card: Replace a card that was edited on the Hub.
        commit_message: First line of the commit; None: what changed.
        echo: Called with the list of files before anything is sent, and with the outcome.

    Returns:
        The URL of the commit or pull request; if nothing changed, of the latest commit.

    Raises:
        InputError: refused: what the folder holds, who is logged in, where they may write.
        UploadError: the network or the Hub failed repeatedly.
    """
    if create_pr and revision is not None:
        step = "leave out revision: a pull request is for the main branch"
        raise InputError("either create_pr or revision", f"create_pr and revision={revision!r}", step)
    api = HfApi(token=token) if api is None else api
    repo_id = full_name(api, repo_id)
    what: dict[str, Any] = {"revision": revision, "include_completions": include_completions}
    plan = plan_push(folder, repo_id, token=getattr(api, "token", None), **what)
    how: dict[str, Any] = {"create_pr": create_pr, "overwrite_card": overwrite_card, "commit_message": commit_message}
    return upload(api, plan, private=private, echo=echo, **how)


def plan_push(
    folder: Path | str,
    repo_id: str,
    *,
    revision: str | None = None,
    include_completions: bool = False,
    token: str | bool | None = None,
) -> UploadPlan:
    """What `push_to_hub` would send, checked without the network; what must not or cannot be uploaded is refused."""
    folder, own_token = Path(folder), token if isinstance(token, str) else get_token()
    check_name(repo_id, revision)
    kind = "space" if is_space(folder) else "model"
    if kind == "space":  # its card is stamped, so that edits on the Hub are noticed later
        selection = select_space(folder)
        card = stamped(selection.text_of(CARD))
    else:
        selection = select_model(folder, include_completions=include_completions)
        card = _card(folder, selection.text_of(CARD), repo_id, include_completions)
    check_card(card)
    files = {file.name: file for file in selection.files} | {CARD: UploadFile(CARD, card.encode("utf-8"))}
    plan = UploadPlan(Repository(repo_id, kind, revision), [files[name] for name in sorted(files)], selection.left_out)
    check_content(folder, plan.files, own_token)
    return plan


def _card(folder: Path, existing: str, repo_id: str, include_completions: bool) -> str:
    """The card to upload: if its text was edited, as it is; of a run, rendered for the repository; else renamed."""
    if not is_finished_run(folder):
        if not existing:
            step = "write one, give the output_dir of a run, or call the trainer's create_model_card()"
            raise InputError(f"a model with its card, {CARD}", f"none in {folder}", step)
        return _renamed(existing, repo_id)
    data = card_data_from_folder(folder)
    may_show_texts = include_completions or not has_own_texts(folder)
    edits, card = header_edits(existing, data), existing
    if edits is not None:
        shown = dataclasses.replace(data, model_name=repo_id)
        if not may_show_texts:
            nothing: dict[str, Any] = {"prompts": (), "samples": (), "gains": (), "losses": ()}
            shown = dataclasses.replace(shown, rows_better=None, rows_worse=None, **nothing)
        card = render_with_edits(shown, edits)
    if not may_show_texts and edits is None:
        _check_own_texts(card, data)
    return card


def _renamed(existing: str, repo_id: str) -> str:
    """The card of a trainer with another name in its text; as it is if its text was edited."""
    card = with_name(unstamped(existing), repo_id)
    if is_untouched(existing):
        return stamped(card)
    if not has_untouched_text(existing):
        return existing
    # Stamped without the header, so that it still counts as edited.
    return with_header(stamped(with_header(card, "---\n---\n")), header_of(card))


def _check_own_texts(card: str, data: RewardModelCardData) -> None:
    """Refuses an edited `card` with prompts of its run in any place where the template shows them."""
    check_card(card)
    rows = [*data.samples, *data.gains, *data.losses]
    shown = {f"| {cell(row['source'])} |" for row in rows} | {quote(prompt) for prompt in data.prompts}
    shown |= {prompt_literal(data)} if data.prompts else set()
    prompts = {one_line(row.get("prompt") or data.prompt_prefix + row["source"]) for row in rows}
    examples = ModelCard(card).data.get("widget") or []
    widget = [str(example["text"]) for example in examples if isinstance(example, dict) and "text" in example]
    found = sum(form in card for form in shown) + sum(text in prompts for text in widget)
    if found:
        where = f"them in {found} places of README.md, which was edited by hand"
        again = "render the card again with trl-rewards card --overwrite-card"
        step = f"remove them, {again}, or publish them with --include-completions"
        raise InputError("a card without prompts of your own", where, step)
