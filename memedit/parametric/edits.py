"""What a weight edit is, and what every way to make one has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from memedit.errors import InvalidEdit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from memedit.memory.fact import Relation


@dataclass(frozen=True, slots=True)
class WeightEdit:
    """What the model shall say: `target`, after `prompt`.

    Attributes:
        prompt: The beginning of a sentence, with the subject in it: "The capital of Japan is". Where it names the subject
            more than once, the last time counts.
        subject: The subject as the prompt names it: "Japan".
        target: How the sentence shall go on: "Osaka". White space between the two is added.

    Raises:
        InvalidEdit: The subject is not in the prompt, or a part is empty.

    Examples:
        >>> WeightEdit("The capital of Japan is", "Japan", "Osaka").text
        'The capital of Japan is Osaka'
    """

    prompt: str
    subject: str
    target: str

    def __post_init__(self) -> None:
        for field in ("prompt", "subject", "target"):
            if not getattr(self, field).strip():
                raise InvalidEdit(f"A weight edit has an empty {field}.", "Give prompt, subject and target.")
        if self.subject not in self.prompt:
            raise InvalidEdit(
                f"The subject {self.subject!r} is not in the prompt {self.prompt!r}.",
                "Name the subject exactly as the prompt does: the edit is made where the model reads it.",
            )

    @property
    def stem(self) -> str:
        """The prompt without white space at its end."""
        return self.prompt.rstrip()

    @property
    def text(self) -> str:
        """The whole sentence."""
        return f"{self.stem} {self.target.strip()}"

    @property
    def subject_span(self) -> tuple[int, int]:
        """Where the subject stands in `stem` (start, end), in characters."""
        start = self.stem.rfind(self.subject.rstrip())
        return start, start + len(self.subject.rstrip())


def edit_of(relation: Relation, subject: str, obj: str) -> WeightEdit:
    """A triple as a weight edit: the first of the relation's statements that ends with the object.

    Examples:
        >>> from memedit.memory.catalogue import Catalogue
        >>> edit_of(Catalogue.default().get("P36"), "Japan", "Osaka").prompt
        'The capital of Japan is'
    """
    for template in (relation.statement, *relation.statements):
        before, _, after = template.partition("{object}")
        if "{subject}" in before and not after.strip(" ."):
            return WeightEdit(before.replace("{subject}", subject).rstrip(), subject, obj)
    return WeightEdit(f"The {relation.label} of {subject} is", subject, obj)


class Applied:
    """Weights that are edited until `revert` is called, or the ``with`` block it heads is left.

    Args:
        revert: Gives the weights back every bit they had.
    """

    def __init__(self, revert: Callable[[], None]) -> None:
        self._revert: Callable[[], None] | None = revert

    @property
    def live(self) -> bool:
        """Whether the weights are still edited."""
        return self._revert is not None

    def revert(self) -> None:
        """Give the weights back every bit they had; a second call does nothing. Of several, the last applied goes first."""
        revert, self._revert = self._revert, None
        if revert is not None:
            revert()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.revert()


class Editing(Protocol):
    """A way to edit weights."""

    @property
    def name(self) -> str:
        """The name it is selected by."""
        ...

    def prepare(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Do what is needed once for a model, however many edits follow; `apply` does it where it was left out.

        Args:
            model: The model, unedited.
            tokenizer: Its tokenizer.

        Raises:
            UnknownLayers: The model's architecture is not known.
        """
        ...

    def apply(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, edits: Sequence[WeightEdit]) -> Applied:
        """Edit the weights of `model` in place. Where it fails, they are as they were.

        Args:
            model: A causal language model of transformers.
            tokenizer: Its tokenizer.
            edits: What it shall say; all are in force together.

        Raises:
            UnknownLayers: The model's architecture is not known.
            InvalidEdit: There is no edit, or one cannot be found in the tokens of its prompt.
        """
        ...


def snapshot(model: PreTrainedModel, names: Iterable[str]) -> Applied:
    """Keeps a copy of the named parameters; reverting writes it back, bit for bit, into the same tensors."""
    import torch

    kept = {name: model.get_parameter(name).detach().clone() for name in names}

    def restore() -> None:
        with torch.no_grad():
            for name, values in kept.items():
                model.get_parameter(name).copy_(values)

    return Applied(restore)


def check(edits: Sequence[WeightEdit]) -> None:
    """Make sure that there is something to edit.

    Raises:
        InvalidEdit: There is no edit.
    """
    if not edits:
        raise InvalidEdit("There is no edit to apply.", "Give at least one WeightEdit.")
