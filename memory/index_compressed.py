"""The index of millions of vectors: compressed clusters give a shortlist, the vectors themselves put it in order.

A code is one bit a dimension and a few numbers (RaBitQ: Gao and Long, SIGMOD 2024): 56 bytes where 384 dimensions take
1,536. Codes alone would confuse neighbours, so a few hundred rows are fetched by them and compared for real. How many
clusters to look into and how many rows to fetch is measured when the index is made, on its own vectors.

Where FAISS finds a GPU (the package faiss-gpu), the shortlist is made there, of all rows, as float16.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from memedit.memory.backends import (
    EXHAUSTIVE_MASK,
    TARGET_RECALL,
    Clustered,
    Mask,
    Sample,
    best_of,
    clusters_for,
    fill,
)
from memedit.memory.cores import cores_for
from memedit.memory.index_rows import Ids, Rows, Vectors

if TYPE_CHECKING:
    import faiss

_QUERY_BITS = 8
_WIDTHS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


class Compressed(Clustered):
    """Clusters of codes, with exact re-ranking.

    Args:
        index: FAISS's part.
        rows: The vectors.
        nprobe: How many clusters are looked into.
        width: How many rows are fetched by their codes, at least.
        outgrown_above: With more rows than this, a new index is due.
    """

    kind = "compressed"

    def __init__(
        self, index: faiss.IndexIVFRaBitQ, rows: Rows, *, nprobe: int, width: int, outgrown_above: int
    ) -> None:
        super().__init__(index, rows, nprobe=nprobe, outgrown_above=outgrown_above)
        self.width = width
        self.gpu: GpuRows | None = None

    @classmethod
    def build(cls, rows: Rows, live: Ids) -> Compressed:
        """Train, fill and measure an index of the rows `live`."""
        import faiss

        clusters, quantizer = clusters_for(len(live)), faiss.IndexFlatIP(rows.dimension)
        index = faiss.IndexIVFRaBitQ(quantizer, rows.dimension, clusters, faiss.METRIC_INNER_PRODUCT)
        index.own_fields = True
        quantizer.this.disown()
        lists = fill(index, rows, live)
        built = cls(index, rows, nprobe=clusters, width=_WIDTHS[-1], outgrown_above=2 * len(live))
        sample = Sample.of(rows, live)
        built.nprobe = sample.probes_needed(index, lists)
        built.width = built._width_needed(sample.queries, live[sample.nearest])
        return built.with_gpu()

    def with_gpu(self) -> Self:
        """Itself, its shortlist made on the GPU where there is one."""
        self.gpu = GpuRows.where_possible(self._rows, self._rows.live_rows())
        return self

    def add(self, rows: Ids, vectors: Vectors, prepared: Ids | None) -> None:
        """See `Backend.add`."""
        super().add(rows, vectors, prepared)
        if self.gpu is not None:
            self.gpu.add(rows, vectors)

    def search(self, queries: Vectors, k: int, mask: Mask | None) -> tuple[Vectors, Ids]:
        """See `Backend.search`."""
        if mask is not None and len(mask.rows) <= EXHAUSTIVE_MASK:
            return best_of(self._rows, queries, k, mask.rows)
        if mask is None and self.gpu is not None:
            shortlist = self.gpu.search(queries, self.width + 2 * k)
        else:
            probes = self.nprobe
            if mask is not None:
                probes = min(self.index.nlist, -(-probes * len(self) // len(mask.rows)))
            with cores_for(len(queries)):
                shortlist = self._search(queries, self.width + 2 * k, probes, mask)[1]
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for place, numbers in enumerate(shortlist):
            held = numbers[self._rows.ids_of(numbers) >= 0]  # the GPU still has those that were taken out
            best, found = best_of(self._rows, queries[place : place + 1], k, held)
            scores[place], rows[place] = best[0], found[0]
        return scores, rows

    def _search(self, queries: Vectors, k: int, probes: int, mask: Mask | None) -> tuple[Vectors, Ids]:
        import faiss

        params = faiss.IVFRaBitQSearchParameters(nprobe=probes, qb=_QUERY_BITS)
        if mask is not None:
            params.sel = mask.selector
        found: tuple[Vectors, Ids] = self.index.search(queries, k, params=params)
        return found

    def _width_needed(self, queries: Vectors, nearest: Ids) -> int:
        """The fewest rows to fetch by their codes so that `TARGET_RECALL` of the nearest are among them."""
        _, found = self._search(queries, _WIDTHS[-1], self.nprobe, None)
        order = (found[:, np.newaxis, :] == nearest[:, :, np.newaxis]).argmax(axis=2)
        hit = (found[:, np.newaxis, :] == nearest[:, :, np.newaxis]).any(axis=2)
        if not hit.any():
            return _WIDTHS[-1]
        return next((width for width in _WIDTHS if (order[hit] < width).mean() >= TARGET_RECALL), _WIDTHS[-1])


class GpuRows:
    """A copy of rows on the GPU, as float16, that gives a shortlist by comparing a query with every one.

    Rows are appended and never taken out: a dead one is found and then passed over, since no id stands for it.
    FAISS's GPU indexes serve one thread at a time.
    """

    def __init__(self, dimension: int) -> None:
        import faiss

        self._resources = faiss.StandardGpuResources()
        config = faiss.GpuIndexFlatConfig()
        config.useFloat16 = True
        self._index = faiss.GpuIndexFlat(self._resources, dimension, faiss.METRIC_INNER_PRODUCT, config)
        self._rows: Ids = np.empty(0, np.int64)
        self._count = 0
        self._lock = threading.Lock()

    @classmethod
    def where_possible(cls, rows: Rows, live: Ids) -> GpuRows | None:
        """A copy of the rows `live`; None where there is no GPU that FAISS can use, or no room on it."""
        import faiss

        if not getattr(faiss, "get_num_gpus", int)() or not hasattr(faiss, "GpuIndexFlat"):
            return None
        try:
            made = cls(rows.dimension)
            for some, vectors in rows.blocks(live):
                made.add(some, vectors)
        except RuntimeError as error:
            warnings.warn(f"The index stays on the CPU, since the GPU failed: {error}", RuntimeWarning, stacklevel=2)
            return None
        return made

    def add(self, rows: Ids, vectors: Vectors) -> None:
        """Append rows."""
        with self._lock:
            self._index.add(vectors)
            if self._count + len(rows) > len(self._rows):
                self._rows = np.resize(self._rows, self._count + len(rows) + self._count // 4)
            self._rows[self._count : self._count + len(rows)] = rows
            self._count += len(rows)

    def search(self, queries: Vectors, k: int) -> Ids:
        """The rows [q, k] nearest to each query, padded with -1."""
        with self._lock:
            places: npt.NDArray[np.int64] = self._index.search(queries, k)[1]
            return np.where(places >= 0, self._rows[places], -1)
