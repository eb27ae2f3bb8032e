"""An edited copy of a model, as a `LanguageModel`: whatever takes one can be asked what weight edits make of it.

The copy is loaded for this alone. No model that somebody else holds is ever written to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from memedit.errors import InvalidSpec, UnknownLayers
from memedit.models.transformers import TransformersModel
from memedit.parametric.contexts import mark
from memedit.parametric.edits import Applied, Editing, WeightEdit
from memedit.parametric.finetune import FineTuning
from memedit.parametric.layers import LayerMap
from memedit.parametric.lora import Lora
from memedit.parametric.memit import Memit
from memedit.parametric.rome import Rome

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

METHODS: dict[str, Callable[[], Editing]] = {
    "rome": Rome,
    "memit": Memit,
    "ft": FineTuning,
    "ft-l": FineTuning,
    "ft-m": lambda: FineTuning("m"),
    "lora": Lora,
}
"""Every way to edit weights, by name, with its usual settings; ``ft`` is ``ft-l``."""


def load_method(method: str | Editing) -> Editing:
    """The way to edit weights that a name stands for; an object is given back as it is.

    Raises:
        InvalidSpec: There is none of that name.
    """
    if not isinstance(method, str):
        return method
    if method not in METHODS:
        raise InvalidSpec(f"There is no way to edit weights called {method!r}.", f"Use one of: {', '.join(METHODS)}.")
    return METHODS[method]()


class ParametricModel(TransformersModel):
    """A transformers model with edits in its weights.

    Args:
        folder: The unedited model's folder, or its name on the hub; nothing is written there.
        method: How to edit: a name of `METHODS`, or an `Editing`.
        edits: The edits to begin with.
        name: What reports call the unedited model.
        device: Where to put it; by default a GPU if there is one.

    Raises:
        ModelNotFound: There is no such model.
        UnknownLayers: Its architecture is not known.
        InvalidSpec: There is no such method.
    """

    def __init__(
        self,
        folder: str | Path,
        method: str | Editing = "rome",
        edits: Sequence[WeightEdit] = (),
        *,
        name: str | None = None,
        device: str | None = None,
    ) -> None:
        self.method = load_method(method)
        # What a model keeps of a prompt's beginning is no longer true once its weights change: none is kept.
        super().__init__(
            folder, name=f"{self.method.name}:{name or folder}", dtype="float32", device=device, prefixes=0
        )
        LayerMap(self.weights)
        self._applied: Applied | None = None
        self._edits: tuple[WeightEdit, ...] = ()
        self.hold(edits)

    @property
    def edits(self) -> tuple[WeightEdit, ...]:
        """The edits that are in the weights."""
        return self._edits

    @property
    def weights(self) -> PreTrainedModel:
        """The model of transformers itself."""
        return cast("_HasModel", self._network).model

    @property
    def vocabulary(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return cast("_HasTokenizer", self._tokenizer).tokenizer

    def check(self, edit: WeightEdit) -> None:
        """Make sure that an edit can be found in its tokens, before time is spent on others.

        Raises:
            InvalidEdit: Its subject cannot be told from what follows it.
        """
        mark(self.vocabulary, edit.text, edit.subject_span, len(edit.stem))

    def prepare(self) -> None:
        """Do what the method needs once for this model, so that the first edit takes no longer than the others."""
        if self._applied is None:
            self.method.prepare(self.weights, self.vocabulary)

    def hold(self, edits: Sequence[WeightEdit]) -> None:
        """Put these edits into the weights and no others: what was there is taken out first, bit for bit.

        Where it fails, no edit is in the weights. Not to be called while another thread asks the model.

        Args:
            edits: The edits; none gives back the unedited model.

        Raises:
            InvalidEdit: An edit's subject cannot be found in the tokens of its prompt.
        """
        if tuple(edits) == self._edits:
            return
        if self._applied is not None:
            self._applied.revert()
        self._applied, self._edits = None, ()
        if edits:
            self._applied = self.method.apply(self.weights, self.vocabulary, edits)
            self._edits = tuple(edits)


class _HasModel(Protocol):
    @property
    def model(self) -> PreTrainedModel: ...


class _HasTokenizer(Protocol):
    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...


def edited(spec: str, method: str | Editing = "rome", edits: Sequence[WeightEdit] = ()) -> ParametricModel:
    """An edited copy of the model that a spec names.

    Args:
        spec: ``"embedded"`` or ``"hf:NAME_OR_PATH"``.
        method: How to edit: a name of `METHODS`, or an `Editing`.
        edits: The edits.

    Raises:
        UnknownLayers: The model is not in this process, or its architecture is not known.
        ModelNotFound: There is no such model.
        InvalidSpec: There is no such method.
    """
    check_reach(spec)
    if spec == "embedded":
        from memedit.models.embedded import NAME, model_folder

        return ParametricModel(model_folder(), method, edits, name=NAME)
    return ParametricModel(spec.removeprefix("hf:"), method, edits, name=spec)


def check_reach(spec: str) -> None:
    """Make sure that the weights of a model can be had; nothing is loaded.

    Raises:
        UnknownLayers: The model is not in this process.
    """
    if spec != "embedded" and not (spec.startswith("hf:") and len(spec) > len("hf:")):
        raise UnknownLayers(
            f"The weights of {spec!r} are out of reach, so they cannot be edited.",
            "Name a model that runs in this process: 'embedded' or 'hf:NAME_OR_PATH'.",
        )
