r"""zsRE: questions about a fact, the same in other words, and questions about nothing of the kind (Levy et al. 2017).

    python -m benchmarks.zsre --data FILE --model SPEC --strategy NAME --edits 1|N|all --limit N --seed S --json OUT
    python -m benchmarks.zsre --report OUT [--plot PNG] [--markdown]

An example problem:

    edit         Which family does Salt Fern belong to?  Roseae
    paraphrase   What family are Salt Ferns?             -> Roseae
    locality     nq question: who won the cup in 1999    -> whatever the unedited model says
    portability  Which order does Salt Fern belong to?   -> Rosales

The file is zsRE as MEND (Mitchell et al. 2022) and EasyEdit split it, with portability questions or without.

The measures and their formulas are in `memedit.evaluation.measures`; what stands in the JSON is told by
`memedit.evaluation.figures.figures`.
"""

from __future__ import annotations

import sys

from memedit.evaluation.command import main

if __name__ == "__main__":
    sys.exit(main("zsre"))
