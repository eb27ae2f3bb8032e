"""The value that an edit wants at the subject's last token: found by optimising the target's probability.

Meng et al. 2022, equation 4: the mean over contexts of -log P(target), plus a KL term that keeps what the model takes the
subject to be ("SUBJECT is a ..."). Shared by ROME and MEMIT. Knows nothing of how a value is written into weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memedit.parametric.contexts import Contexts
from memedit.parametric.states import changed

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class ValueSettings:
    """How a value is optimised.

    Attributes:
        steps: Most steps of Adam.
        rate: Its learning rate, as a part of the root mean square of the state that is changed.
        essence: Weight of the KL term.
        decay: Weight of the squared norm of the change, in units of the state's squared norm.
        clamp: Largest norm of the change, in units of the state's norm.
        enough: The optimisation ends early where -log P(target), the mean over its tokens, is below this.
    """

    steps: int = 20
    rate: float = 0.5
    essence: float = 0.0625
    decay: float = 0.02
    clamp: float = 4.0
    enough: float = 0.05


def optimise(
    contexts: Contexts, module: nn.Module, settings: ValueSettings, scale: float | None = None
) -> torch.Tensor:
    """The change of `module`'s output at the subject's last token that makes the target likely, [width].

    It is added in every context to what the module gives there. That is the paper's assignment of one value z to all
    contexts, but for the differences between the contexts' own outputs, which a rank-one update leaves as they are too.

    Args:
        contexts: The edit in its contexts.
        module: Whose output is changed.
        settings: How.
        scale: The norm that `settings.clamp` counts in; by default the output's.
    """
    import torch

    head = contexts.head()
    [(_, before)] = contexts.look(module)
    norm = float(before.float().norm()) if scale is None else scale
    rate = settings.rate * norm / before.numel() ** 0.5
    change = torch.zeros_like(before, dtype=torch.float32, requires_grad=True)
    with torch.no_grad():
        essence = contexts.essence(contexts.tail(head))
    adam = torch.optim.Adam([change], lr=rate)

    def put(output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[:, :1] + change.to(output.dtype), output[:, 1:]], dim=1)

    for _ in range(settings.steps):
        with torch.enable_grad(), changed(module, put):
            hidden = contexts.tail(head)
            loss = contexts.target_loss(hidden)
            if float(loss.detach()) < settings.enough:
                break
            drift = torch.nn.functional.kl_div(essence, contexts.essence(hidden), log_target=True, reduction="sum")
            decay = change.square().sum() / norm**2
            torch.autograd.backward(loss + settings.essence * drift + settings.decay * decay)
        adam.step()
        adam.zero_grad()
        with torch.no_grad():
            change *= min(1.0, settings.clamp * norm / max(float(change.norm()), 1e-12))
    return change.detach()
