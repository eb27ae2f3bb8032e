"""The vector index against brute force, through changes, masks, growth, threads and damaged files."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memedit.memory.index import CorruptIndex, VectorIndex

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

DIMENSION = 16


def unit(seed: int, count: int, dimension: int = DIMENSION) -> Vectors:
    """Unit vectors, the same ones for the same seed."""
    rows = np.random.default_rng(seed).standard_normal((count, dimension))
    return normalised(rows)


def around_topics(seed: int, count: int, topics: int = 40, dimension: int = 32) -> Vectors:
    """Unit vectors in clouds, as the vectors of texts are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((topics, dimension))
    rows = centres[rng.integers(topics, size=count)] + 0.6 * rng.standard_normal((count, dimension))
    return normalised(rows)


def normalised(rows: npt.NDArray[np.float64]) -> Vectors:
    vectors: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return vectors


def arange(count: int, start: int = 0) -> Ids:
    return np.arange(start, start + count, dtype=np.int64)


def brute_force(held: dict[int, Vectors], query: Vectors, k: int) -> tuple[list[float], list[int]]:
    """The k best (score, id), best first, padded as the index pads."""
    scored = sorted(((float(vector @ query), number) for number, vector in held.items()), reverse=True)[:k]
    scored += [(-np.inf, -1)] * (k - len(scored))
    return [score for score, _ in scored], [number for _, number in scored]


def recall(index: VectorIndex, ids: Ids, vectors: Vectors, queries: Vectors, k: int = 5) -> float:
    truth = ids[np.argsort(-(queries @ vectors.T), axis=1)[:, :k]]
    _, found = index.search(queries, k)
    return float(np.mean([len(np.intersect1d(*pair)) / k for pair in zip(truth, found, strict=True)]))


@pytest.fixture
def clustered() -> tuple[VectorIndex, Ids, Vectors]:
    """An index past its exact limit, its clusters in place."""
    index = VectorIndex(32, exact_limit=1_000)
    ids, vectors = arange(6_000, start=3), around_topics(0, 6_000)
    index.add(ids, vectors)
    index.wait()
    assert not index.exact
    return index, ids, vectors


class AgainstBruteForce(RuleBasedStateMachine):
    """Any sequence of changes leaves the index finding what a scan over a dict of vectors finds."""

    @initialize()
    def start(self) -> None:
        self.index = VectorIndex(DIMENSION)
        self.held: dict[int, Vectors] = {}
        self.pool = unit(1, 512)

    @rule(numbers=st.lists(st.integers(0, 60), unique=True, max_size=12), seed=st.integers(0, 500))
    def add(self, numbers: list[int], seed: int) -> None:
        vectors = self.pool[seed : seed + len(numbers)]
        self.index.add(np.array(numbers[: len(vectors)], dtype=np.int64), vectors)
        self.held.update(zip(numbers, vectors, strict=False))

    @rule(numbers=st.lists(st.integers(0, 60), max_size=12))
    def remove(self, numbers: list[int]) -> None:
        self.index.remove(np.array(numbers, dtype=np.int64))
        for number in numbers:
            self.held.pop(number, None)

    @rule(k=st.integers(1, 8), seed=st.integers(0, 1000))
    def search(self, k: int, seed: int) -> None:
        queries = unit(10_000 + seed, 3)
        scores, ids = self.index.search(queries, k)
        for row, query in enumerate(queries):
            expected_scores, expected_ids = brute_force(self.held, query, k)
            np.testing.assert_allclose(scores[row], expected_scores, atol=1e-5)
            assert self.same(ids[row], expected_ids)

    @rule(k=st.integers(1, 8), mask=st.sets(st.integers(0, 80)), seed=st.integers(0, 1000))
    def search_within(self, k: int, mask: set[int], seed: int) -> None:
        queries = unit(20_000 + seed, 2)
        scores, ids = self.index.search(queries, k, within=np.array(sorted(mask), dtype=np.int64))
        inside = {number: vector for number, vector in self.held.items() if number in mask}
        for row, query in enumerate(queries):
            expected_scores, expected_ids = brute_force(inside, query, k)
            np.testing.assert_allclose(scores[row], expected_scores, atol=1e-5)
            assert self.same(ids[row], expected_ids)

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "held"):
            assert len(self.index) == len(self.held)

    def same(self, found: Ids, expected: list[int]) -> bool:
        """Equal ids, where ids holding one and the same vector may stand for each other."""

        def vector(number: int) -> bytes:
            return self.held[number].tobytes() if number >= 0 else b""

        return [vector(int(number)) for number in found] == [vector(number) for number in expected]


TestAgainstBruteForce = AgainstBruteForce.TestCase
TestAgainstBruteForce.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


def test_equal_scores_come_by_ascending_id_whatever_the_order_they_were_added_in() -> None:
    vector = unit(0, 1)
    forwards, backwards = VectorIndex(DIMENSION), VectorIndex(DIMENSION)
    for number in range(6):
        forwards.add(arange(1, number), vector)
        backwards.add(arange(1, 5 - number), vector)

    assert forwards.search(vector, 6)[1].tolist() == backwards.search(vector, 6)[1].tolist() == [[0, 1, 2, 3, 4, 5]]


def test_an_empty_index_and_an_empty_mask_give_padding_only() -> None:
    index, query = VectorIndex(DIMENSION), unit(0, 1)

    for within in (None, np.empty(0, np.int64)):
        scores, ids = index.search(query, 2, within=within)
        assert scores.tolist() == [[-np.inf, -np.inf]]
        assert ids.tolist() == [[-1, -1]]


def test_ids_of_64_bits_are_kept_whole_and_can_be_masked() -> None:
    index, vectors = VectorIndex(DIMENSION), unit(0, 3)
    ids = np.array([2**40 + 1, 2**62 + 5, 1], dtype=np.int64)
    index.add(ids, vectors)

    _, found = index.search(vectors[1:2], 3, within=ids[:2])

    assert found[0, 0] == 2**62 + 5
    assert set(found[0].tolist()) == {2**62 + 5, 2**40 + 1, -1}


@pytest.mark.parametrize(
    ("ids", "shape"),
    [
        ([1, 1], (2, DIMENSION)),
        ([-1], (1, DIMENSION)),
        ([1, 2], (1, DIMENSION)),
        ([1], (1, DIMENSION + 1)),
        ([1], (DIMENSION,)),
    ],
)
def test_ids_and_vectors_that_do_not_match_are_refused_and_nothing_is_added(
    ids: list[int], shape: tuple[int, ...]
) -> None:
    index = VectorIndex(DIMENSION)

    with pytest.raises(ValueError, match=r"[Ii]ds|shape"):
        index.add(np.array(ids, dtype=np.int64), np.ones(shape, np.float32))

    assert len(index) == 0


@pytest.mark.parametrize(("k", "width"), [(0, DIMENSION), (1, DIMENSION - 1)])
def test_a_search_that_means_nothing_is_refused(k: int, width: int) -> None:
    with pytest.raises(ValueError, match=r"k must|shape"):
        VectorIndex(DIMENSION).search(np.ones((1, width), np.float32), k)


def test_an_array_changed_by_its_owner_later_does_not_change_the_index() -> None:
    index, vectors = VectorIndex(32, exact_limit=100), around_topics(0, 2_000)
    kept = vectors.copy()
    index.add(arange(2_000), vectors)
    late = kept[:1].copy()
    index.add(arange(1, 5_000), late)
    vectors[:] = 0
    late[:] = 0
    index.wait()

    scores, ids = index.search(kept[:1], 2)

    assert ids.tolist() == [[0, 5_000]]
    np.testing.assert_allclose(scores, 1.0, atol=1e-5)


# -- past the exact limit -------------------------------------------------------------------------------------


def test_clusters_find_nearly_all_that_an_exact_search_finds(clustered: tuple[VectorIndex, Ids, Vectors]) -> None:
    index, ids, vectors = clustered
    unseen = around_topics(0, 6_300)[6_000:]

    assert recall(index, ids, vectors, vectors[:300]) >= 0.98
    assert recall(index, ids, vectors, unseen) >= 0.98


def test_clusters_take_additions_replacements_and_removals(clustered: tuple[VectorIndex, Ids, Vectors]) -> None:
    check_changes(*clustered)


def check_changes(index: VectorIndex, ids: Ids, vectors: Vectors) -> None:
    """Add to an index of 6,000 vectors, replace and remove, and see that it finds what it then holds."""
    fresh = around_topics(9, 3)

    index.add(np.array([99_999], dtype=np.int64), fresh[:1])
    index.add(ids[:1], fresh[1:2])
    index.remove(np.array([ids[1], ids[2], 123_456], dtype=np.int64))

    assert len(index) == 6_000 + 1 - 2
    assert index.search(fresh[:1], 1)[1].tolist() == [[99_999]]
    assert index.search(fresh[1:2], 1)[1].tolist() == [[ids[0]]]
    assert ids[1] not in index.search(vectors[1:2], 10)[1]


def test_a_small_mask_over_clusters_is_exact(clustered: tuple[VectorIndex, Ids, Vectors]) -> None:
    index, ids, vectors = clustered
    rng = np.random.default_rng(2)
    queries = unit(3, 20, 32)  # far from every cluster, where probing a few would miss most of the mask

    for size in (1, 7, 400):
        rows = rng.choice(len(ids), size, replace=False)
        _, found = index.search(queries, 5, within=ids[rows])
        order = np.argsort(-(queries @ vectors[rows].T), axis=1)[:, :5]
        np.testing.assert_array_equal(found[:, : min(5, size)], ids[rows][order])


def test_a_large_mask_over_clusters_shows_nothing_outside_it(clustered: tuple[VectorIndex, Ids, Vectors]) -> None:
    index, ids, vectors = clustered
    half = ids[::2]

    _, found = index.search(vectors[:50], 8, within=half)

    assert np.isin(found, half).all()
    assert (found[::2, 0] == ids[:50:2]).all()


def test_changes_made_while_clusters_are_built_are_in_them() -> None:
    index = VectorIndex(32, exact_limit=500)
    vectors = around_topics(4, 9_000)
    index.add(arange(3_000), vectors[:3_000])

    for start in range(3_000, 9_000, 50):
        index.add(arange(50, start), vectors[start : start + 50])
        index.remove(arange(10, start))
    index.wait()

    kept = np.array([number for number in range(9_000) if number < 3_000 or number % 50 >= 10], dtype=np.int64)
    assert not index.exact
    assert len(index) == len(kept)
    scores, found = index.search(vectors[kept], 1)
    np.testing.assert_array_equal(found[:, 0], kept)
    np.testing.assert_allclose(scores[:, 0], 1.0, atol=1e-5)


def test_clusters_are_trained_again_once_the_vectors_have_doubled() -> None:
    index = VectorIndex(32, exact_limit=500)
    index.add(arange(1_000), around_topics(0, 1_000))
    index.wait()
    first = index._backend

    index.add(arange(1_500, 1_000), around_topics(5, 1_500))
    index.wait()

    assert index._backend is not first
    assert len(index) == 2_500


# -- threads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact_limit", [100_000, 500])
def test_readers_beside_a_writer_always_find_what_is_never_removed(exact_limit: int) -> None:
    index = VectorIndex(32, exact_limit=exact_limit)
    vectors = around_topics(7, 4_000)
    anchors = vectors[:50]
    index.add(arange(50), anchors)
    stop = threading.Event()
    failures: list[str] = []

    def read() -> None:
        while not stop.is_set():
            scores, ids = index.search(anchors, 1)
            if ids[:, 0].tolist() != list(range(50)) or not np.allclose(scores, 1.0, atol=1e-5):
                failures.append(f"found {ids[:, 0].tolist()}")
            masked = index.search(anchors[:1], 3, within=arange(50))[1]
            if not np.isin(masked, arange(50)).all():
                failures.append(f"outside the mask: {masked.tolist()}")
            time.sleep(0)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for start in range(50, 4_000, 79):
        rows = vectors[start : start + 79]
        index.add(arange(len(rows), start), rows)
        index.remove(arange(20, start))
    index.wait()
    stop.set()
    for reader in readers:
        reader.join()

    assert failures == []
    assert index.exact == (exact_limit == 100_000)


def test_writers_in_several_threads_lose_nothing() -> None:
    index = VectorIndex(32, exact_limit=1_000)
    vectors = around_topics(8, 4_000)

    def write(part: int) -> None:
        for start in range(part * 1_000, part * 1_000 + 1_000, 20):
            index.add(arange(20, start), vectors[start : start + 20])

    writers = [threading.Thread(target=write, args=(part,)) for part in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    index.wait()

    np.testing.assert_array_equal(index.search(vectors, 1)[1][:, 0], arange(4_000))


# -- the snapshot ---------------------------------------------------------------------------------------------


def saved(path: Path, count: int = 200) -> VectorIndex:
    index = VectorIndex(DIMENSION)
    index.add(arange(count), unit(0, count))
    index.save(path, generation=17, fingerprint='all-MiniLM "ü"\n')
    return index


def test_a_snapshot_holds_everything(tmp_path: Path) -> None:
    index = saved(tmp_path / "facts.index")

    loaded, generation, fingerprint = VectorIndex.load(tmp_path / "facts.index")

    assert (generation, fingerprint) == (17, 'all-MiniLM "ü"\n')
    assert len(loaded) == 200
    for mine, theirs in zip(index.search(unit(5, 9), 4), loaded.search(unit(5, 9), 4), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_loaded_index_can_be_changed(tmp_path: Path) -> None:
    saved(tmp_path / "facts.index")
    loaded, _, _ = VectorIndex.load(tmp_path / "facts.index")

    loaded.remove(arange(150))
    loaded.add(arange(2, 500), unit(6, 2))

    assert len(loaded) == 52
    assert loaded.search(unit(6, 2), 1)[1].tolist() == [[500], [501]]


def test_clusters_survive_a_snapshot(tmp_path: Path, clustered: tuple[VectorIndex, Ids, Vectors]) -> None:
    index, _, vectors = clustered
    index.save(tmp_path / "facts.index", generation=1, fingerprint="f")

    loaded, _, _ = VectorIndex.load(tmp_path / "facts.index", exact_limit=1_000)

    assert not loaded.exact
    for mine, theirs in zip(index.search(vectors[:40], 4), loaded.search(vectors[:40], 4), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_loaded_clusters_can_be_changed(tmp_path: Path, clustered: tuple[VectorIndex, Ids, Vectors]) -> None:
    index, ids, vectors = clustered
    index.save(tmp_path / "facts.index", generation=1, fingerprint="f")
    loaded, _, _ = VectorIndex.load(tmp_path / "facts.index", exact_limit=1_000)

    loaded.remove(ids[:2])
    loaded.add(ids[:1], vectors[:1])

    assert len(loaded) == 5_999
    assert loaded.search(vectors[:1], 1)[1].tolist() == [[ids[0]]]
    assert ids[1] not in loaded.search(vectors[1:2], 5)[1]


def test_a_large_exact_snapshot_gets_its_clusters_when_loaded_with_a_smaller_limit(tmp_path: Path) -> None:
    index = VectorIndex(32)
    index.add(arange(3_000), around_topics(0, 3_000))
    index.save(tmp_path / "facts.index", generation=1, fingerprint="f")

    loaded, _, _ = VectorIndex.load(tmp_path / "facts.index", exact_limit=1_000)
    loaded.wait()

    assert not loaded.exact
    assert len(loaded) == 3_000


def test_an_empty_index_can_be_saved_and_loaded(tmp_path: Path) -> None:
    VectorIndex(DIMENSION).save(tmp_path / "facts.index", generation=0, fingerprint="")

    loaded, generation, _ = VectorIndex.load(tmp_path / "facts.index")

    assert (len(loaded), generation, loaded.dimension) == (0, 0, DIMENSION)


def test_saving_leaves_one_file_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "facts.index"
    saved(path)
    saved(path, count=3)

    assert list(tmp_path.iterdir()) == [path]
    assert len(VectorIndex.load(path)[0]) == 3


def test_a_save_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.index"
    index = saved(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        index.save(path, generation=18, fingerprint="")

    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_what_a_killed_writer_left_behind_is_swept_up(tmp_path: Path) -> None:
    old, recent = tmp_path / ".facts.index.aaaa.tmp", tmp_path / ".facts.index.bbbb.tmp"
    for leftover in (old, recent):
        leftover.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)

    saved(tmp_path / "facts.index")

    assert not old.exists()
    assert recent.exists(), "it may belong to a process that is still writing"


def test_a_missing_file_is_not_called_corrupt(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        VectorIndex.load(tmp_path / "facts.index")


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "facts.index"
    saved(path, count=4)
    whole = path.read_bytes()

    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptIndex, match=r"facts\.index"):
            VectorIndex.load(path)


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, place: float, bit: int) -> None:
    path = tmp_path_factory.mktemp("flip") / "facts.index"
    saved(path, count=4)
    damaged = bytearray(path.read_bytes())
    damaged[int(place * len(damaged))] ^= 1 << bit
    path.write_bytes(damaged)

    with pytest.raises(CorruptIndex):
        VectorIndex.load(path)


@pytest.mark.parametrize("contents", [b"", b"SQLite format 3\x00" + bytes(500), b"IxFI" + bytes(100), os.urandom(4096)])
def test_a_file_of_something_else_is_refused(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "facts.index"
    path.write_bytes(contents)

    with pytest.raises(CorruptIndex, match="rebuilt"):
        VectorIndex.load(path)


def test_bytes_after_the_end_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "facts.index"
    saved(path)
    with path.open("ab") as file:
        file.write(b"x")

    with pytest.raises(CorruptIndex, match="length"):
        VectorIndex.load(path)


def test_corrupt_index_is_a_value_error() -> None:
    assert issubclass(CorruptIndex, ValueError)
