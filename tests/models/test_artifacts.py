"""Run folders: what a saved network holds, how it is read back, and what DONE vouches for."""

from pathlib import Path

import pytest
import torch

from models.artifacts import is_complete, load_subject, mark_done
from models.constructions import average_reward_td, td0
from models.files import ArtifactError
from models.linear import LinearTransformer


@pytest.mark.parametrize("construct", [td0, average_reward_td], ids=["one head", "two heads"])
def test_a_saved_network_is_read_back(tmp_path: Path, construct) -> None:
    model = construct(2.0 * torch.eye(3).expand(2, 1, 3, 3), n_layers=2)
    model.save_pretrained(tmp_path)
    for back in (load_subject(tmp_path), LinearTransformer.from_pretrained(tmp_path)):
        assert isinstance(back, LinearTransformer)
        assert back.config == model.config
        assert torch.equal(back.P, model.P)
        assert torch.equal(back.Q, model.Q)


def test_the_model_card_is_no_form_to_fill_in(tmp_path: Path) -> None:
    td0(torch.eye(3)[None, None], n_layers=2).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "merged attention weights" in card
    assert "More Information Needed" not in card
    assert "[seeds, layers, width, width]" in card


def test_done_vouches_for_all_but_the_model_card(tmp_path: Path) -> None:
    td0(torch.eye(3)[None, None], n_layers=2).save_pretrained(tmp_path)
    assert not is_complete(tmp_path)
    mark_done(tmp_path)
    (tmp_path / "README.md").write_text("# Mine")
    assert is_complete(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ArtifactError, match=r"config\.json is gone"):
        is_complete(tmp_path)
