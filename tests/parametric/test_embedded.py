from __future__ import annotations

import pytest

from memedit.parametric import Rome, WeightEdit
from memedit.parametric.layers import LayerMap
from memedit.parametric.model import edited
from memedit.parametric.sample import TextSample
from memedit.parametric.statistics import SecondMoments

from .bits import bits_of, changed_names

LAYER = 8


@pytest.mark.model
def test_rome_edits_the_embedded_model_and_gives_every_bit_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    # A smaller sample than the default: this shows that it works, not how well.
    moments = SecondMoments(TextSample(sentences=120, written=0), folder=tmp_path_factory.mktemp("moments"))
    rome = Rome(LAYER, moments=moments)
    model = edited("embedded", rome)
    before = bits_of(model.weights)
    edit = WeightEdit("The mother tongue of Danielle Darrieux is", "Danielle Darrieux", "English")
    pairs = [(edit.prompt, " English"), (edit.prompt, " French")]
    unedited = [score.log_probability for score in model.score(pairs)]
    update = rome.update(model.weights, model.vocabulary, edit, LAYER)

    model.hold([edit])

    new, old = (score.log_probability for score in model.score(pairs))
    assert unedited[0] < unedited[1]
    assert new > old
    given = LayerMap(model.weights).matrix(LAYER).double() @ update.key
    assert (given - update.value).norm() / update.value.norm() < 1e-3
    model.hold([])
    assert not changed_names(model.weights, before)
