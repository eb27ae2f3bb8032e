from __future__ import annotations

from pathlib import Path

import pytest

from memedit.errors import InvalidEdit, InvalidSpec, UnknownLayers
from memedit.models.base import LanguageModel, Sampling
from memedit.parametric import WeightEdit, load_method
from memedit.parametric.contexts import Prefixes
from memedit.parametric.model import METHODS, ParametricModel, edited
from memedit.parametric.rome import Rome
from memedit.parametric.statistics import SecondMoments
from memedit.parametric.value import ValueSettings

from .tiny import tiny_llama, tiny_tokenizer

EDIT = WeightEdit("The capital of New Zealand", "New Zealand", "Osaka")
OTHER = WeightEdit("The city of Kyoto", "Kyoto", "France")
WORD = Sampling(max_tokens=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def rome(moments: SecondMoments) -> Rome:
    settings = ValueSettings(steps=40, rate=2.0, clamp=20.0, decay=0.0)
    return Rome(1, moments=moments, prefixes=Prefixes(count=0), settings=settings)


def test_an_edited_copy_is_a_language_model_that_says_the_target(folder: Path, rome: Rome) -> None:
    model = ParametricModel(folder, rome, [EDIT], name="tiny")

    assert isinstance(model, LanguageModel)
    assert model.name == "rome:tiny"
    assert model.generate([EDIT.prompt], WORD)[0].text.strip() == "Osaka"
    assert model.score([(EDIT.prompt, " Osaka")])[0].greedy


def test_other_edits_take_the_place_of_those_held(folder: Path, rome: Rome) -> None:
    model = ParametricModel(folder, rome)
    unedited = model.score([(EDIT.prompt, " Osaka"), (OTHER.prompt, " France")])
    model.hold([EDIT])

    model.hold([OTHER])

    assert model.edits == (OTHER,)
    assert model.generate([OTHER.prompt], WORD)[0].text.strip() == "France"
    model.hold([])
    assert model.score([(EDIT.prompt, " Osaka"), (OTHER.prompt, " France")]) == unedited


def test_after_an_edit_that_fails_none_is_held(folder: Path, rome: Rome) -> None:
    model = ParametricModel(folder, rome, [EDIT])
    unedited = ParametricModel(folder, rome).score([(EDIT.prompt, " Osaka")])

    with pytest.raises(InvalidEdit):
        model.hold([OTHER, _inseparable()])

    assert model.edits == ()
    assert model.score([(EDIT.prompt, " Osaka")]) == unedited


def _inseparable() -> WeightEdit:
    edit = WeightEdit("Japan", "Japan", "is")
    object.__setattr__(edit, "subject", "Japan is")
    return edit


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_its_name(name: str) -> None:
    assert load_method(name).name == {"ft": "ft-l"}.get(name, name)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSpec, match=r"'mend'.*rome, memit, ft"):
        load_method("mend")


@pytest.mark.parametrize("spec", ["http://localhost:8000/v1", "hf:", "embedding"])
def test_weights_out_of_reach_are_refused(spec: str) -> None:
    with pytest.raises(UnknownLayers, match="out of reach"):
        edited(spec)
