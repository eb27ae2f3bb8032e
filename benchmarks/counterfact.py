r"""CounterFact: does an edit take, in other words too, and is all else left alone? (Meng et al. 2022, arXiv:2202.05262)

    python -m benchmarks.counterfact --data FILE --model SPEC --strategy NAME --edits 1|N|all --limit N --seed S --json OUT
    python -m benchmarks.counterfact --report OUT [--plot PNG] [--markdown]

An example problem:

    edit          The author of The Salt Road is Mirela Toma.        (before: Old Writer)
    prompt        "The author of The Salt Road is" -> Mirela Toma
    paraphrase    "It rained all day. The Salt Road was written by" -> Mirela Toma
    neighborhood  "The author of Glass Harbour is" -> Old Writer, as before
    portability   "Where was the author of The Salt Road born?" -> Lima

The file is CounterFact itself (with EasyEdit's portability questions or without), or EasyEdit's reduced form of it.

The measures and their formulas are in `memedit.evaluation.measures`; what stands in the JSON is told by
`memedit.evaluation.figures.figures`.
"""

from __future__ import annotations

import sys

from memedit.evaluation.command import main

if __name__ == "__main__":
    sys.exit(main("counterfact"))
