"""How many of the processor's cores PyTorch and FAISS may use in a thread: what is done here is mostly too small to gain from many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_FEW_ROWS = 8


def use_one_core() -> None:
    """Have PyTorch run this thread's networks on one core, from now on.

    It would otherwise spread every small matrix over all cores, which gains little, and makes everything several times slower
    when others use the cores too.
    """
    import torch
    from threadpoolctl import ThreadpoolController

    torch.get_num_threads()  # PyTorch sets a new thread's limit when first asked, over any set before
    ThreadpoolController().select(user_api="openmp").limit(limits=1)


@contextmanager
def cores_for(rows: int) -> Iterator[None]:
    """Keep FAISS, in this thread, to one core for a few rows.

    It would otherwise wake every core and wait for all of them even for one vector, which takes many times longer than the
    work itself when others use the cores too.
    """
    import faiss

    with at_most(1 if rows <= _FEW_ROWS else faiss.omp_get_max_threads()):
        yield


@contextmanager
def at_most(cores: int) -> Iterator[None]:
    """Keep FAISS, in this thread, to some cores."""
    import faiss

    before = faiss.omp_get_max_threads()
    if cores >= before:
        yield
        return
    faiss.omp_set_num_threads(cores)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
