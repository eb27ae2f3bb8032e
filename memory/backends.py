"""How the rows of an index are searched: exhaustively, by clusters, or by compressed clusters and re-ranking.

Each is a structure over row numbers of one `Rows`, changed and searched the same way. None is safe by itself while it is
changed: `VectorIndex` keeps writers apart from readers. Knows nothing of ids.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from memedit.memory.cores import cores_for
from memedit.memory.index_rows import BLOCK, Ids, Rows, Vectors

if TYPE_CHECKING:
    import faiss

TARGET_RECALL = 0.998
"""Least share of the five nearest that must lie in the clusters that are looked into, measured when they are made."""

EXHAUSTIVE_MASK = 10_000
"""A mask of up to so many rows is searched exhaustively, by the vectors themselves."""

_PROBES_SAMPLE = 512
_NEAREST = 5


class Mask(NamedTuple):
    """The rows a search is confined to.

    Attributes:
        rows: int64 [m], each once.
        selector: FAISS's form of them; None for no rows at all.
    """

    rows: Ids
    selector: faiss.IDSelector | None

    @classmethod
    def of(cls, rows: Ids) -> Mask:
        """The mask of int64 [m] rows; negative ones are passed over."""
        import faiss

        rows = np.unique(rows[rows >= 0])
        if not len(rows):
            return cls(rows, None)
        members = np.zeros(8 * (int(rows[-1]) // 8 + 1), np.bool_)
        members[rows] = True
        return cls(rows, faiss.IDSelectorBitmap(np.packbits(members, bitorder="little")))


class Backend(Protocol):
    """A structure that finds rows.

    Attributes:
        kind: What it is called in a snapshot.
        nprobe: How many clusters an unmasked search looks into; 0 where there are no clusters.
        width: How many rows are re-ranked for few wanted ones; 0 where none are.
        outgrown_above: With more rows than this, a new structure is due.
    """

    kind: str
    nprobe: int
    width: int
    outgrown_above: int

    def __len__(self) -> int: ...

    def prepare(self, vectors: Vectors) -> Ids | None:
        """What `add` needs to know of vectors and can be found out beside readers."""
        ...

    def add(self, rows: Ids, vectors: Vectors, prepared: Ids | None) -> None:
        """Take in rows that it does not hold."""
        ...

    def remove(self, rows: Ids) -> None:
        """Let go of rows; those that it does not hold are passed over."""
        ...

    def search(self, queries: Vectors, k: int, mask: Mask | None) -> tuple[Vectors, Ids]:
        """Scores [q, k] and rows [q, k], best first, padded with -1."""
        ...

    def structure(self) -> npt.NDArray[np.uint8]:
        """What a snapshot must hold of it beside the rows."""
        ...


class Exact:
    """Every vector is compared with the query."""

    kind = "exact"
    nprobe = 0
    width = 0
    outgrown_above = 0

    def __init__(self, dimension: int) -> None:
        import faiss

        flat = faiss.IndexFlatIP(dimension)
        self._index = faiss.IndexIDMap(flat)
        self._index.own_fields = True
        flat.this.disown()
        self._flat = flat
        self._dimension = dimension

    @classmethod
    def build(cls, rows: Rows, live: Ids) -> Exact:
        """One that holds the rows `live`."""
        made = cls(rows.dimension)
        for some, vectors in rows.blocks(live):
            made.add(some, vectors, None)
        return made

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def prepare(self, vectors: Vectors) -> Ids | None:
        """See `Backend.prepare`."""
        return None

    def add(self, rows: Ids, vectors: Vectors, prepared: Ids | None) -> None:
        """See `Backend.add`."""
        self._index.add_with_ids(vectors, rows)

    def remove(self, rows: Ids) -> None:
        """Swap the unwanted rows with the last ones before they are cut off: FAISS alone would move all behind them."""
        import faiss

        held, vectors = self._views()
        gone = np.isin(held, rows)
        count = int(np.count_nonzero(gone))
        if not count:
            return
        kept = len(held) - count
        holes = np.flatnonzero(gone[:kept])
        fillers = kept + np.flatnonzero(~gone[kept:])
        names = held[gone]
        held[holes], held[fillers] = held[fillers], held[holes]
        vectors[holes] = vectors[fillers]
        self._index.remove_ids(faiss.IDSelectorBatch(names))

    def search(self, queries: Vectors, k: int, mask: Mask | None) -> tuple[Vectors, Ids]:
        """See `Backend.search`."""
        import faiss

        found: tuple[Vectors, Ids] = self._index.search(
            queries, k, params=None if mask is None else faiss.SearchParameters(sel=mask.selector)
        )
        return found

    def structure(self) -> npt.NDArray[np.uint8]:
        """See `Backend.structure`: the rows are all there is."""
        return np.empty(0, np.uint8)

    def _views(self) -> tuple[Ids, Vectors]:
        """FAISS's own arrays: rows [n] and vectors [n, dimension]; valid until the index is changed."""
        import faiss

        count = len(self)
        if not count:
            return np.empty(0, np.int64), np.empty((0, self._dimension), np.float32)
        held = faiss.rev_swig_ptr(self._index.id_map.data(), count)
        vectors = faiss.rev_swig_ptr(self._flat.get_xb(), count * self._dimension)
        return held, vectors.reshape(count, self._dimension)


class Clustered:
    """Only the clusters nearest to the query are compared with it (IVF, with a hash table from row to place).

    Clusters hold whole vectors, as float32 or float16 as the rows do.

    Args:
        index: FAISS's part.
        rows: The vectors, for small masks.
        nprobe: How many clusters are looked into.
        outgrown_above: With more rows than this, new clusters are due.
    """

    kind = "clustered"
    width = 0

    def __init__(self, index: faiss.IndexIVF, rows: Rows, *, nprobe: int, outgrown_above: int) -> None:
        self.index = index
        self.nprobe = nprobe
        self.outgrown_above = outgrown_above
        self._rows = rows

    @classmethod
    def build(cls, rows: Rows, live: Ids) -> Clustered:
        """Train clusters on a sample of the rows, fill them, and probe as many as `TARGET_RECALL` takes."""
        import faiss

        clusters, quantizer = clusters_for(len(live)), faiss.IndexFlatIP(rows.dimension)
        if rows.half:
            index = faiss.IndexIVFScalarQuantizer(
                quantizer,
                rows.dimension,
                clusters,
                faiss.ScalarQuantizer.QT_fp16,
                faiss.METRIC_INNER_PRODUCT,
                False,  # vectors whole, not what is left of them beside their cluster's centre
            )
        else:
            index = faiss.IndexIVFFlat(quantizer, rows.dimension, clusters, faiss.METRIC_INNER_PRODUCT)
        index.own_fields = True
        quantizer.this.disown()
        lists = fill(index, rows, live)
        built = cls(index, rows, nprobe=clusters, outgrown_above=2 * len(live))
        built.nprobe = Sample.of(rows, live).probes_needed(index, lists)
        return built

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def prepare(self, vectors: Vectors) -> Ids | None:
        """The cluster of each vector."""
        with cores_for(len(vectors)):
            return np.ascontiguousarray(self.index.quantizer.search(vectors, 1)[1][:, 0])

    def add(self, rows: Ids, vectors: Vectors, prepared: Ids | None) -> None:
        """See `Backend.add`."""
        import faiss

        lists = self.prepare(vectors) if prepared is None else prepared
        rows = np.ascontiguousarray(rows)
        with cores_for(len(rows)):
            self.index.add_core(len(rows), *map(faiss.swig_ptr, (vectors, rows, lists)))

    def remove(self, rows: Ids) -> None:
        """See `Backend.remove`."""
        if len(rows):
            self.index.remove_ids(rows)

    def search(self, queries: Vectors, k: int, mask: Mask | None) -> tuple[Vectors, Ids]:
        """See `Backend.search`."""
        if mask is not None and len(mask.rows) <= EXHAUSTIVE_MASK:
            return best_of(self._rows, queries, k, mask.rows)
        probes = self.nprobe
        if mask is not None:
            probes = min(self.index.nlist, -(-probes * len(self) // len(mask.rows)))
        with cores_for(len(queries)):
            return self._search(queries, k, probes, mask)

    def structure(self) -> npt.NDArray[np.uint8]:
        """See `Backend.structure`."""
        import faiss

        made: npt.NDArray[np.uint8] = faiss.serialize_index(self.index)
        return made

    def _search(self, queries: Vectors, k: int, probes: int, mask: Mask | None) -> tuple[Vectors, Ids]:
        import faiss

        params = faiss.SearchParametersIVF(nprobe=probes)
        if mask is not None:
            params.sel = mask.selector
        found: tuple[Vectors, Ids] = self.index.search(queries, k, params=params)
        return found


class Sample(NamedTuple):
    """Queries to measure recall with.

    Attributes:
        queries: float32 [q, d].
        nearest: int64 [q, 5], places among the live rows of the truly nearest.
    """

    queries: Vectors
    nearest: Ids

    @classmethod
    def of(cls, rows: Rows, live: Ids) -> Sample:
        """A sample for the rows `live`.

        A question is near a stored text, not equal to it: each query is a stored vector that leans towards another one.
        """
        import faiss

        rng = np.random.default_rng(0)
        chosen = rng.choice(len(live), min(len(live), _PROBES_SAMPLE), replace=False)
        vectors = rows.take(live[chosen])
        queries = vectors + 0.7 * vectors[rng.permutation(len(chosen))]
        faiss.normalize_L2(queries)
        _, nearest = nearest_of(rows, queries, _NEAREST, live)
        return cls(queries, nearest)

    def probes_needed(self, index: faiss.IndexIVF, lists: npt.NDArray[np.int32]) -> int:
        """The fewest clusters to look into so that `TARGET_RECALL` of the nearest lie in them."""
        ranked = index.quantizer.search(self.queries, index.nlist)[1]
        order = np.argsort(ranked, axis=1)
        place = np.take_along_axis(order, lists[self.nearest].astype(np.int64), axis=1)
        return int(np.quantile(place, TARGET_RECALL, method="higher")) + 1


def clusters_for(count: int) -> int:
    """How many clusters `count` rows are put into: a power of two near 2 √count, unless they are few."""
    return max(1, min(count // 40, 1 << round(math.log2(2 * math.sqrt(count)))))


def fill(index: faiss.IndexIVF, rows: Rows, live: Ids) -> npt.NDArray[np.int32]:
    """Train an index's clusters on a sample of rows and put the rows `live` into them, a block at a time.

    FAISS's own `add_with_ids` grows each cluster vector by vector, which leaves half as much memory again behind.

    Returns:
        int32 [len(live)]: the cluster of each row.
    """
    import faiss

    index.cp.spherical = True
    index.cp.niter = 8
    index.cp.max_points_per_centroid = 64
    sample = np.random.default_rng(0).permutation(len(live))[: 64 * index.nlist]
    index.train(rows.take(live[np.sort(sample)]))
    lists = np.empty(len(live), np.int32)
    for start, (_, vectors) in zip(range(0, len(live), BLOCK), rows.blocks(live), strict=True):
        lists[start : start + len(vectors)] = index.quantizer.search(vectors, 1)[1][:, 0]
    for cluster, size in enumerate(np.bincount(lists, minlength=index.nlist).tolist()):
        index.invlists.resize(cluster, size)
    filled = np.zeros(index.nlist, np.int64)
    for start, (some, vectors) in zip(range(0, len(live), BLOCK), rows.blocks(live), strict=True):
        homes = lists[start : start + len(some)].astype(np.int64)
        codes = np.empty((len(some), index.code_size), np.uint8)
        index.encode_vectors(len(some), *map(faiss.swig_ptr, (vectors, homes, codes)))
        order = np.argsort(homes, kind="stable")
        bounds = np.searchsorted(homes[order], np.arange(index.nlist + 1))
        for cluster in np.flatnonzero(np.diff(bounds)).tolist():
            inside = order[bounds[cluster] : bounds[cluster + 1]]
            members, content = some[inside], codes[inside]
            index.invlists.update_entries(
                cluster, int(filled[cluster]), len(inside), faiss.swig_ptr(members), faiss.swig_ptr(content)
            )
            filled[cluster] += len(inside)
    index.ntotal = len(live)
    index.set_direct_map_type(faiss.DirectMap.Hashtable)
    return lists


def nearest_of(rows: Rows, queries: Vectors, k: int, live: Ids) -> tuple[Vectors, Ids]:
    """What is truly nearest, however many rows there are: scores [q, k'] and places in `live` [q, k'], best first.

    k' is k, or the number of rows if that is less.
    """
    import faiss

    best = np.full((len(queries), 0), -np.inf, np.float32)
    nearest, start = np.empty((len(queries), 0), np.int64), 0
    for some, block in rows.blocks(live):
        scores, places = faiss.knn(queries, block, min(k, len(some)), metric=faiss.METRIC_INNER_PRODUCT)
        best, nearest = np.hstack([best, scores]), np.hstack([nearest, start + places])
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, nearest = np.take_along_axis(best, order, axis=1), np.take_along_axis(nearest, order, axis=1)
        start += len(some)
    return best, nearest


def best_of(rows: Rows, queries: Vectors, k: int, among: Ids) -> tuple[Vectors, Ids]:
    """Search by the vectors themselves: scores [q, k] and rows [q, k], best first, padded with -1.

    Args:
        rows: The vectors.
        queries: float32 [q, d].
        k: How many to find for each.
        among: int64 [m], the rows to compare with.
    """
    scores = queries @ rows.take(among).T
    found = min(k, len(among))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :found]
    best = np.full((len(queries), k), -np.inf, np.float32)
    numbers = np.full((len(queries), k), -1, np.int64)
    best[:, :found] = np.take_along_axis(scores, order, axis=1)
    numbers[:, :found] = among[order]
    return best, numbers
