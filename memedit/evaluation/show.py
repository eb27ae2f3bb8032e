"""How a single-hop run's figures are shown: which tables, and which bars."""

from __future__ import annotations

from memedit.evaluation.figures import SCORINGS
from memedit.evaluation.report import Figures, Table, number, percent, section

MEASURES = {
    "edit_success": "edit success (ES)",
    "paraphrase_success": "paraphrases (PS)",
    "neighborhood_success": "neighborhood (NS)",
    "locality": "locality",
    "exact_invariance": "exact invariance",
    "exact_invariance_untouched": "exact invariance, no edited subject named",
    "portability": "portability",
    "attribute_success": "attributes",
}
"""Each measure's name in a result, and in words."""
FLUENCY = "fluency (n-gram entropy, bits)"
PHASES = {"edit": "peak memory, editing", "question": "peak memory, asking"}
"""The phases of a run whose memory is measured, in words."""
WORDS = {"teacher_forced": "teacher forced", "generated": "generated", "mentioned": "generated, named anywhere"}


def title(result: Figures) -> str:
    """One line that says what was measured."""
    size = str(result.get("edits_per_memory"))
    memory = {"all": f"{result.get('edits')} edits in one memory", "1": "each edit alone"}.get(
        size, f"{size} edits each"
    )
    return f"{result.get('data')}: {result.get('model')}, {result.get('strategy')}, {memory}"


def scorings(result: Figures) -> list[tuple[str, dict[str, object]]]:
    """The scorings that the result has, in words, each with its figures."""
    return [(WORDS[name], part) for name in SCORINGS if (part := section(result, name))]


def tables(result: Figures) -> list[Table]:
    """The result as tables."""
    parts = scorings(result)
    heads = ("", *(words for words, _ in parts))
    rows = [
        (words, *(percent(part, name) for _, part in parts))
        for name, words in MEASURES.items()
        if any(isinstance(part.get(name), float | int) for _, part in parts)
    ]
    for measure in ("portability", "locality"):
        rows += [
            (f"{measure}: {kind}", *(_by_kind(part, f"{measure}_by_kind", kind) for _, part in parts))
            for kind in section(parts[-1][1], f"{measure}_by_kind")
        ]
    known = section(parts[-1][1], "portability_known")
    if known.get("prompts"):
        label = f"portability, {known['prompts']} whose other fact is known"
        rows.append(
            (label, *(percent(section(part, "portability_known"), "value", interval=False) for _, part in parts))
        )
    made = [Table(f"{title(result)} (% right, 95% interval)", heads, tuple(rows))]
    curve = _scalability(result)
    return [*made, curve, _cost(result)] if curve else [*made, _cost(result)]


def peak_memory(cost: Figures, phase: str) -> str:
    """The most memory used in a phase of a run, in MiB: the host's, and an accelerator's where there is one."""
    peaks = section(section(cost, "peak_memory_mib"), phase)
    told = [number(value) if device == "host" else f"{number(value)} ({device})" for device, value in peaks.items()]
    return " + ".join(told) or "–"


def _by_kind(part: Figures, measure: str, kind: str) -> str:
    figure = section(section(part, measure), kind)
    return f"{percent(figure, 'value', interval=False)} of {number(figure.get('prompts'))}"


def _scalability(result: Figures) -> Table | None:
    parts = [(words, section(part, "scalability")) for words, part in scorings(result)]
    if not any(part for _, part in parts):
        return None
    rows = [
        (
            f"after {seen} edits",
            *(percent(section(section(part, "after"), seen), "value", interval=False) for _, part in parts),
        )
        for seen in section(parts[-1][1], "after")
    ]
    rows.append(("alone", *(percent(section(part, "alone"), "value", interval=False) for _, part in parts)))
    rows.append(("loss from alone to all", *(percent(part, "loss", interval=False) for _, part in parts)))
    return Table("Edit success by the number of edits (%)", ("", *(words for words, _ in parts)), tuple(rows))


def _cost(result: Figures) -> Table:
    cost, fluency = section(result, "cost"), section(result, "fluency")
    rows = (
        ("edits superseded by later ones", number(result.get("superseded_edits"))),
        (FLUENCY, number(fluency.get("entropy_bits"))),
        ("model calls a question", number(cost.get("model_calls_per_question"))),
        ("prompt tokens a question", number(cost.get("prompt_tokens_per_question"))),
        ("seconds an edit", number(cost.get("seconds_per_edit"))),
        ("seconds a question", number(cost.get("seconds_per_question"))),
        ("seconds before the first edit, once", number(cost.get("preparation_seconds"))),
        *((f"{words}, MiB", peak_memory(cost, phase)) for phase, words in PHASES.items()),
    )
    return Table("Cost and side figures", ("", "value"), rows)
