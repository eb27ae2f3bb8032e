"""The two FAISS indexes behind `memedit.memory.index`: exhaustive and clustered, changed and searched the same way.

Neither is safe by itself while it is changed: `VectorIndex` keeps writers apart from readers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import faiss

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

TARGET_RECALL = 0.99
"""Least share of the five nearest that a clustered search must find, measured when the clusters are built."""

EXHAUSTIVE_MASK = 10_000
"""A mask of up to so many ids is searched exhaustively whatever the size of the index."""

_FEW_ROWS = 8


class Change(NamedTuple):
    """One change of an index; made twice, it is as if made once.

    Attributes:
        ids: int64 [n], each one once.
        vectors: float32 [n, dimension] to have under these ids, or None to remove them.
    """

    ids: Ids
    vectors: Vectors | None


class Mask(NamedTuple):
    """The ids a search is confined to, as FAISS takes them.

    Attributes:
        size: How many ids.
        selector: FAISS's form of them; None for no ids at all.
    """

    size: int
    selector: faiss.IDSelector | None

    @classmethod
    def of(cls, within: Ids) -> Mask:
        """The mask of int64 [m] ids; negative ones are passed over."""
        import faiss

        within = within[within >= 0]
        if not len(within):
            return cls(0, None)
        width = int(within.max()) // 8 + 1
        if width > max(1 << 20, 64 * len(within)):  # sparse ids: a bit for each possible one would cost too much
            return cls(len(within), faiss.IDSelectorBatch(within))
        members = np.zeros(8 * width, np.bool_)
        members[within] = True
        return cls(len(within), faiss.IDSelectorBitmap(np.packbits(members, bitorder="little")))


class Backend(Protocol):
    """What holds the vectors.

    Attributes:
        index: The FAISS index, as it is written to disk.
        dimension: Length of a vector.
        nprobe: How many clusters an unmasked search looks into; 0 where there are no clusters.
        outgrown_above: With more vectors than this, new clusters are due.
    """

    index: faiss.Index
    dimension: int
    nprobe: int
    outgrown_above: int

    def __len__(self) -> int: ...

    def apply(self, change: Change) -> None:
        """Make a change."""
        ...

    def search(self, queries: Vectors, k: int, mask: Mask | None) -> tuple[Vectors, Ids]:
        """Scores [q, k] and ids [q, k], best first, padded with -1."""
        ...

    def export(self) -> tuple[Ids, Vectors]:
        """A copy of everything: ids [n] and vectors [n, dimension], in no particular order."""
        ...


class Exact:
    """Every vector is compared with the query."""

    outgrown_above = 0
    nprobe = 0

    def __init__(self, index: faiss.IndexIDMap) -> None:
        import faiss

        self.index = index
        self.dimension = int(index.d)
        self._flat = faiss.downcast_index(index.index)

    @classmethod
    def empty(cls, dimension: int) -> Exact:
        """One with nothing in it."""
        import faiss

        flat = faiss.IndexFlatIP(dimension)
        index = faiss.IndexIDMap(flat)
        index.own_fields = True
        flat.this.disown()
        return cls(index)

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def apply(self, change: Change) -> None:
        """See `Backend.apply`."""
        self._remove(change.ids)
        if change.vectors is not None:
            self.index.add_with_ids(change.vectors, change.ids)

    def search(self, queries: Vectors, k: int, mask: Mask | None) -> tuple[Vectors, Ids]:
        """See `Backend.search`."""
        import faiss

        found: tuple[Vectors, Ids] = self.index.search(
            queries, k, params=None if mask is None else faiss.SearchParameters(sel=mask.selector)
        )
        return found

    def export(self) -> tuple[Ids, Vectors]:
        """See `Backend.export`."""
        ids, vectors = self._views()
        return ids.copy(), vectors.copy()

    def _remove(self, unwanted: Ids) -> None:
        """Swap the unwanted rows with the last ones before they are cut off: FAISS alone would move all behind them."""
        import faiss

        ids, vectors = self._views()
        gone = np.isin(ids, unwanted)
        count = int(np.count_nonzero(gone))
        if not count:
            return
        kept = len(ids) - count
        holes = np.flatnonzero(gone[:kept])
        fillers = kept + np.flatnonzero(~gone[kept:])
        names = ids[gone]
        ids[holes], ids[fillers] = ids[fillers], ids[holes]
        vectors[holes] = vectors[fillers]
        self.index.remove_ids(faiss.IDSelectorBatch(names))

    def _views(self) -> tuple[Ids, Vectors]:
        """FAISS's own arrays: ids [n] and vectors [n, dimension]; valid until the index is changed."""
        import faiss

        count = len(self)
        if not count:
            return np.empty(0, np.int64), np.empty((0, self.dimension), np.float32)
        ids = faiss.rev_swig_ptr(self.index.id_map.data(), count)
        vectors = faiss.rev_swig_ptr(self._flat.get_xb(), count * self.dimension)
        return ids, vectors.reshape(count, self.dimension)


class Clustered:
    """Only the clusters nearest to the query are compared with it (IVF, with a hash table from id to place)."""

    def __init__(self, index: faiss.IndexIVFFlat, *, nprobe: int, outgrown_above: int) -> None:
        self.index = index
        self.dimension = int(index.d)
        self.nprobe = nprobe
        self.outgrown_above = outgrown_above

    @classmethod
    def build(cls, ids: Ids, vectors: Vectors) -> Clustered:
        """Train clusters on a sample of the vectors, fill them, and probe as many as `TARGET_RECALL` takes.

        Args:
            ids: int64 [n].
            vectors: float32 [n, dimension].
        """
        import faiss

        count, dimension = vectors.shape
        clusters = max(1, min(count // 40, 2 ** round(np.log2(2 * np.sqrt(count)))))
        quantizer = faiss.IndexFlatIP(dimension)
        index = faiss.IndexIVFFlat(quantizer, dimension, clusters, faiss.METRIC_INNER_PRODUCT)
        index.own_fields = True
        quantizer.this.disown()
        index.cp.spherical = True
        index.cp.niter = 8
        index.cp.max_points_per_centroid = 64
        index.train(vectors)
        _fill(index, ids, vectors)
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        built = cls(index, nprobe=clusters, outgrown_above=2 * count)
        built.nprobe = built._probes_needed(ids, vectors)
        return built

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def apply(self, change: Change) -> None:
        """See `Backend.apply`."""
        with _cores_for(len(change.ids)):
            self.index.remove_ids(change.ids)
            if change.vectors is not None:
                self.index.add_with_ids(change.vectors, change.ids)

    def search(self, queries: Vectors, k: int, mask: Mask | None) -> tuple[Vectors, Ids]:
        """See `Backend.search`."""
        probes = self.nprobe
        if mask is not None:
            few = mask.size <= EXHAUSTIVE_MASK
            probes = self.index.nlist if few else max(probes, -(-probes * len(self) // mask.size))
        with _cores_for(len(queries)):
            return self._search(queries, k, probes, mask)

    def export(self) -> tuple[Ids, Vectors]:
        """See `Backend.export`."""
        import faiss

        lists = self.index.invlists
        ids, vectors = [np.empty(0, np.int64)], [np.empty((0, self.dimension), np.float32)]
        for number in range(self.index.nlist):
            if size := lists.list_size(number):
                ids.append(faiss.rev_swig_ptr(lists.get_ids(number), size))
                codes = faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
                vectors.append(codes.view(np.float32).reshape(size, self.dimension))
        return np.concatenate(ids), np.concatenate(vectors)

    def _search(self, queries: Vectors, k: int, probes: int, mask: Mask | None = None) -> tuple[Vectors, Ids]:
        import faiss

        params = faiss.SearchParametersIVF(nprobe=min(probes, self.index.nlist))
        if mask is not None:
            params.sel = mask.selector
        found: tuple[Vectors, Ids] = self.index.search(queries, k, params=params)
        return found

    def _probes_needed(self, ids: Ids, vectors: Vectors) -> int:
        """The fewest probes (in steps of a quarter) with which five neighbours are found as by exhaustive search."""
        import faiss

        rng = np.random.default_rng(0)
        sample = rng.choice(len(vectors), min(len(vectors), 256), replace=False)
        # A question is near a stored text, not equal to it: lean each sampled vector towards another one.
        queries = vectors[sample] + 0.5 * vectors[rng.permutation(sample)]
        faiss.normalize_L2(queries)
        _, rows = faiss.knn(queries, vectors, 5, metric=faiss.METRIC_INNER_PRODUCT)
        truth = ids[rows]
        probes = 1
        while probes < self.index.nlist:
            _, found = self._search(queries, 5, probes)
            recall = np.mean([len(np.intersect1d(*pair)) for pair in zip(truth, found, strict=True)]) / truth.shape[1]
            if recall >= TARGET_RECALL:
                return probes
            probes = -(-probes * 5 // 4)
        return int(self.index.nlist)


def _fill(index: faiss.IndexIVFFlat, ids: Ids, vectors: Vectors) -> None:
    """Put every vector into its cluster, a cluster at a time.

    FAISS's own `add_with_ids` grows each cluster vector by vector, which leaves half as much memory again behind.
    """
    import faiss

    clusters = index.quantizer.search(vectors, 1)[1][:, 0]
    order = np.argsort(clusters, kind="stable")
    bounds = np.searchsorted(clusters[order], np.arange(index.nlist + 1))
    for cluster in range(index.nlist):
        rows = order[bounds[cluster] : bounds[cluster + 1]]
        if len(rows):
            members, codes = ids[rows], vectors[rows].view(np.uint8)
            index.invlists.add_entries(cluster, len(rows), faiss.swig_ptr(members), faiss.swig_ptr(codes))
    index.ntotal = len(ids)


@contextmanager
def _cores_for(rows: int) -> Iterator[None]:
    """Keep FAISS, in this thread, to one core for a few rows.

    It would otherwise wake every core and wait for all of them even for one vector, which takes many times longer than the
    work itself when others use the cores too.
    """
    import faiss

    cores = faiss.omp_get_max_threads()
    if rows > _FEW_ROWS or cores == 1:
        yield
        return
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(cores)
