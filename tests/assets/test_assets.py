"""Bundled assets are what was measured, or are refused."""

import pytest

from trl_rewards_plugin import assets
from trl_rewards_plugin.errors import InputError


@pytest.mark.parametrize("name", assets.ASSETS)
def test_every_bundled_asset_verifies_and_is_small(name):
    folder = assets.asset_path(name)
    assert (folder / "README.md").read_text(encoding="utf-8").strip()
    assert max(path.stat().st_size for path in folder.iterdir()) <= 15_000_000


def test_all_assets_together_stay_under_50_mb():
    total = sum(path.stat().st_size for path in assets.ROOT.rglob("*") if path.is_file())
    assert total <= 50_000_000


def test_an_altered_or_missing_file_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    assets.write_checksums(tmp_path)
    assets.verify_checksums(tmp_path)
    (tmp_path / "a.txt").write_text("two")
    with pytest.raises(InputError, match=r"a\.txt with SHA-256"):
        assets.verify_checksums(tmp_path)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputError, match="no such file"):
        assets.verify_checksums(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(InputError, match="checksum list"):
        assets.verify_checksums(tmp_path)


def test_an_unknown_asset_is_refused():
    with pytest.raises(InputError, match="'tiny-bart'"):
        assets.asset_path("tiny-bart")


def test_bundled_names_are_found():
    assert assets.bundled_path("bundled:prompts/train.jsonl").is_file()
    assert assets.resolve("bundled:prompts") == str(assets.ROOT / "prompts")
    assert assets.resolve("owner/name") == "owner/name"
    with pytest.raises(InputError, match="use one of these"):
        assets.resolve("bundled:nothing")
    with pytest.raises(InputError, match="did you mean 'tiny-t5'"):
        assets.resolve("bundled:tinyt5")


@pytest.mark.parametrize("listing", ["", "0123abc\n", "\n"])
def test_a_list_of_checksums_without_any_is_refused(tmp_path, listing):
    (tmp_path / "SHA256SUMS").write_text(listing)
    with pytest.raises(InputError, match="digests and names of files in SHA256SUMS"):
        assets.verify_checksums(tmp_path)
