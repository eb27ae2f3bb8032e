"""Plots of a training run: its loss curve and its calibration. Knows nothing of what was trained; needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

_SMOOTHED = 20
"""Steps that a point of the loss curve is the mean of."""


def plots_are_possible() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plot_losses(path: Path, losses: Mapping[str, Sequence[float]], *, unit: str = "step") -> None:
    """Draw loss curves, smoothed, on a logarithmic scale.

    Args:
        path: The image to write.
        losses: Cross-entropy in nats at every step, by the name of its curve.
        unit: What a point of a curve is.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for name, series in losses.items():
        axes.plot(_smooth(series), label=name)
    axes.set(xlabel=unit, ylabel="cross-entropy, nats", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def plot_calibration(path: Path, bins: Sequence[tuple[float, float, float]]) -> None:
    """Draw what share was right against what was said.

    Args:
        path: The image to write.
        bins: Mean confidence, share right and number of answers of every bin.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(4, 4))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.scatter([row[0] for row in bins], [row[1] for row in bins], s=[10 + row[2] / 2 for row in bins])
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def _smooth(series: Sequence[float]) -> list[float]:
    parts = [series[max(0, at - _SMOOTHED) : at + 1] for at in range(len(series))]
    return [sum(part) / len(part) for part in parts]
