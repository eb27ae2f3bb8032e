"""SERAC: semi-parametric editing with a retrieval-augmented counterfactual model (Mitchell et al. 2022, arXiv:2206.06520).

Edits are kept in a cache, and the base model is left as it is. For an input x', the scope classifier g finds the cached
edit z_i that x' most probably belongs to (section 3.1):

    i* = argmax_i g(z_i, x'),   beta = g(z_i*, x')

    answer = base(x')                         if beta < threshold
             counterfactual(z_i*, x')         otherwise

Here the cache is the edit memory, g is the editor's scope classifier with the threshold it was calibrated for (the paper
takes 0.5), and the counterfactual model is `memedit.counterfactual`. Unlike the paper's it is not only a network: where the
edit alone settles a question, the answer is read off it and no network is asked, and what a question asks of the edit's
object is asked of the base model. SERAC answers from one edit: it plans no chains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memedit.nested import plainly
from memedit.strategies.base import Resolution, Step, Steps, retrieve
from memedit.strategies.resolved import answer_resolved, edit_hop

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView


@dataclass(frozen=True, slots=True)
class Serac:
    """The nearest edit in scope and the counterfactual model; out of scope the base model, byte for byte."""

    @property
    def name(self) -> str:
        """``serac``."""
        return "serac"

    def __call__(self, question: str, view: MemoryView) -> Steps:
        """See `memedit.strategies.base.Strategy`."""
        return (yield from answer_resolved(self, question, view))

    def resolve(self, question: str, view: MemoryView) -> Step[Resolution]:
        """See `memedit.strategies.base.Resolver`."""
        if len(view) == 0:
            return Resolution()
        best = next(iter((yield from retrieve(view, plainly(question, view), k=1))), None)
        if best is None:
            return Resolution()
        if not best.in_scope:
            return Resolution(probability=1.0 - best.probability)
        hops = () if best.fact.is_free_text else (edit_hop(view, best.fact, best.probability),)
        return Resolution((best.fact,), hops, best.probability, "scope")
