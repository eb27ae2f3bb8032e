"""The picture of a causal trace: a heat map of what putting each state back gains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from memedit.errors import MissingExtra

if TYPE_CHECKING:
    from memedit.parametric.tracing import Trace

_COLOURS = {"hidden": "Purples", "mlp": "Greens", "attention": "Reds"}
_NAMES = {"hidden": "a hidden state", "mlp": "a window of MLPs", "attention": "a window of attentions"}


def draw(trace: Trace, path: str | Path) -> Path:
    """Write the heat map of a trace, tokens by layers, as a PNG.

    Args:
        trace: The trace.
        path: The file; its folder is made where it is missing.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "rome") from error

    layers = trace.restored.shape[1]
    figure = Figure(figsize=(2.5 + 0.16 * layers, 1.6 + 0.24 * len(trace.places)), dpi=150, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        trace.restored.tolist(), aspect="auto", cmap=_COLOURS[trace.state], vmin=min(trace.corrupted, trace.clean)
    )
    first, last = trace.subject
    marks = ["*" if first <= place <= last else "" for place in trace.places]
    words = [repr(trace.tokens[place])[1:-1] for place in trace.places]
    axes.set_yticks(range(len(words)), [word + mark for word, mark in zip(words, marks, strict=True)])
    axes.set_xticks(range(0, layers, 5))
    axes.set_xlabel(f"layer at which {_NAMES[trace.state]} is put back")
    axes.set_title(f"{trace.fact.target.strip()}: {trace.clean:.2f} clean, {trace.corrupted:.2f} corrupted", fontsize=9)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("probability of the answer")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, format="png")
    return target
