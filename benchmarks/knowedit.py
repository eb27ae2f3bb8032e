r"""KnowEdit: what should follow from an edit, and what should not (Zhang et al. 2024, arXiv:2401.01286).

    python -m benchmarks.knowedit --data FILE --model SPEC --strategy NAME --edits 1|N|all --limit N --seed S --json OUT
    python -m benchmarks.knowedit --report OUT [--plot PNG] [--markdown]

An example problem:

    edit                  The name of the country of Port Vell is Norway.
    Subject_Aliasing      "The name of the country of Vell Harbour is" -> Norway
    Reasoning             "The name of the capital of the country of Port Vell is" -> Oslo
    Relation_Specificity  "The name of the founder of Port Vell is" -> whatever the unedited model says

The file is one of KnowEdit's wiki_counterfact or wiki_recent.

The measures and their formulas are in `memedit.evaluation.measures`; what stands in the JSON is told by
`memedit.evaluation.figures.figures`.
"""

from __future__ import annotations

import sys

from memedit.evaluation.command import main

if __name__ == "__main__":
    sys.exit(main("knowedit"))
