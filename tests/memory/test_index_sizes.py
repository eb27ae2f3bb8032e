"""The index beyond clusters of whole vectors: codes and re-ranking, rows in files, structures made and swapped in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from memedit.memory import index_rows
from memedit.memory.index import VectorIndex
from memedit.memory.index_rows import Ids, Rows, Vectors
from tests.memory.test_index import arange, around_topics, check_changes, recall, unit

DIMENSION = 32


def compressed(count: int = 6_000, *, half: bool = True) -> tuple[VectorIndex, Ids, Vectors]:
    """An index of codes, and what is in it."""
    index = VectorIndex(DIMENSION, exact_limit=500, whole_limit=1_000, half=half)
    ids, vectors = arange(count, start=3), around_topics(0, count)
    index.fill([(ids[:4_000], vectors[:4_000]), (ids[4_000:], vectors[4_000:])])
    return index, ids, vectors


def kind(index: VectorIndex) -> str:
    return index.structure.partition(",")[0]


@pytest.mark.parametrize(("count", "expected"), [(400, "exact"), (900, "clustered"), (2_000, "compressed")])
def test_the_structure_follows_from_the_number_of_vectors(count: int, expected: str) -> None:
    index = VectorIndex(DIMENSION, exact_limit=500, whole_limit=1_000)

    index.add(arange(count), around_topics(0, count))
    index.wait()

    assert kind(index) == expected
    assert len(index) == count


def test_codes_and_reranking_find_nearly_all_that_an_exact_search_finds() -> None:
    index, ids, vectors = compressed()
    unseen = around_topics(0, 6_300)[6_000:]

    assert kind(index) == "compressed"
    assert recall(index, ids, vectors, vectors[:300]) >= 0.98
    assert recall(index, ids, vectors, unseen) >= 0.98


def test_scores_after_reranking_are_those_of_the_vectors_themselves() -> None:
    index, ids, vectors = compressed()

    scores, found = index.search(vectors[:100], 3)

    np.testing.assert_array_equal(found[:, 0], ids[:100])
    kept = vectors.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(scores, (kept[found - 3] * vectors[:100, None, :]).sum(axis=2), atol=1e-5)


def test_an_exhaustive_search_is_exact_whatever_the_structure() -> None:
    index, ids, vectors = compressed()
    queries = unit(3, 20, DIMENSION)
    kept = vectors.astype(np.float16).astype(np.float32)

    scores, found = index.exhaustive(queries, 4)

    np.testing.assert_array_equal(found, ids[np.argsort(-(queries @ kept.T), axis=1)[:, :4]])
    np.testing.assert_allclose(scores, np.sort(queries @ kept.T, axis=1)[:, :-5:-1], atol=1e-5)


def test_codes_take_additions_replacements_and_removals() -> None:
    check_changes(*compressed())


@pytest.mark.parametrize("size", [1, 7, 400])
def test_a_small_mask_over_codes_is_exact(size: int) -> None:
    index, ids, vectors = compressed(half=False)
    rows = np.random.default_rng(2).choice(len(ids), size, replace=False)
    queries = unit(3, 20, DIMENSION)

    _, found = index.search(queries, 5, within=ids[rows])

    order = np.argsort(-(queries @ vectors[rows].T), axis=1)[:, :5]
    np.testing.assert_array_equal(found[:, : min(5, size)], ids[rows][order])


def test_a_large_mask_over_codes_shows_nothing_outside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memedit.memory.index_compressed.EXHAUSTIVE_MASK", 100)
    index, ids, vectors = compressed()
    half = ids[::2]

    _, found = index.search(vectors[:50], 8, within=half)

    assert np.isin(found, half).all()
    assert (found[::2, 0] == ids[:50:2]).all()


def test_filling_an_index_that_is_not_empty_replaces_what_is_given_again() -> None:
    index = VectorIndex(DIMENSION, exact_limit=500)
    before, after = around_topics(1, 300), around_topics(2, 2_000)
    index.add(arange(300), before)

    index.fill([(arange(2_000, start=100), after)])

    assert len(index) == 2_100
    assert index.search(after[:1], 1)[1].tolist() == [[100]]
    assert index.search(before[:1], 1)[1].tolist() == [[0]]


def test_what_came_before_an_error_in_filling_is_found() -> None:
    index = VectorIndex(DIMENSION, exact_limit=500)
    vectors = around_topics(2, 1_000)

    def parts() -> Iterator[tuple[Ids, Vectors]]:
        yield arange(1_000), vectors
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        index.fill(parts())

    assert index.search(vectors[:1], 1)[1].tolist() == [[0]]
    assert len(index) == 1_000


# -- files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
def test_codes_survive_a_snapshot_and_can_be_changed_then(tmp_path: Path, *, half: bool) -> None:
    index, ids, vectors = compressed(half=half)
    index.remove(ids[:5])
    index.save(tmp_path / "facts.index", generation=4, fingerprint="f")

    loaded, generation, fingerprint = VectorIndex.load(tmp_path / "facts.index", exact_limit=500, whole_limit=1_000)

    assert (generation, fingerprint, loaded.structure) == (4, "f", index.structure)
    for mine, theirs in zip(index.search(vectors[:40], 4), loaded.search(vectors[:40], 4), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    loaded.remove(ids[10:12])
    loaded.add(ids[:1], vectors[:1])
    assert loaded.search(vectors[:1], 1)[1].tolist() == [[ids[0]]]
    assert ids[10] not in loaded.search(vectors[10:11], 5)[1]
    assert len(loaded) == 6_000 - 5 - 2 + 1


def test_a_loaded_index_does_not_mind_that_its_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "facts.index"
    index, ids, vectors = compressed()
    index.save(path, generation=1, fingerprint="f")
    loaded, _, _ = VectorIndex.load(path)

    loaded.add(arange(1, start=50_000), around_topics(5, 1))
    loaded.save(path, generation=2, fingerprint="f")
    again, _, _ = VectorIndex.load(path)

    for reader in (loaded, again):
        assert reader.search(vectors[:9], 1)[1][:, 0].tolist() == ids[:9].tolist()
        assert reader.search(around_topics(5, 1), 1)[1].tolist() == [[50_000]]


def test_a_snapshot_holds_nothing_of_a_vector_that_was_taken_out(tmp_path: Path) -> None:
    index = VectorIndex(DIMENSION, half=False)
    vectors = unit(0, 3, DIMENSION)
    index.add(arange(3), vectors)
    index.remove(arange(1, start=1))

    index.save(tmp_path / "facts.index", generation=1, fingerprint="f")

    contents = (tmp_path / "facts.index").read_bytes()
    assert vectors[0].tobytes() in contents
    assert vectors[1].tobytes() not in contents


@pytest.mark.parametrize("half", [False, True])
def test_rows_are_the_same_in_memory_and_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, half: bool
) -> None:
    monkeypatch.setattr(index_rows, "IN_MEMORY_BYTES", 4_000)
    vectors = unit(1, 500, DIMENSION)
    rows = Rows(DIMENSION, half=half, folder=tmp_path)

    for start in range(0, 500, 20):
        rows.append(arange(20, start), vectors[start : start + 20])
        expected = vectors[: start + 20].astype(np.float16 if half else np.float32).astype(np.float32)
        np.testing.assert_array_equal(rows.take(rows.live_rows()), expected)

    assert list(tmp_path.iterdir()) == []  # the file has no name, so nothing is left behind by a process that is killed


def test_ids_far_apart_are_found_again_and_can_come_close_later() -> None:
    rows = Rows(2)
    far = np.array([5, 2**62 + 5, 2**40, 3_000_000], dtype=np.int64)

    rows.append(far, np.ones((4, 2), np.float32))
    rows.append(arange(500_000), np.ones((500_000, 2), np.float32))
    rows.append(far[3:], np.ones((1, 2), np.float32))
    rows.remove(far[1:2])

    assert rows.rows_of(far).tolist() == [4 + 5, -1, 2, 500_004]
    assert rows.live == 3 + 500_000 - 1
    assert rows.ids_of(np.array([0, 1, 2, 3, -1])).tolist() == [-1, -1, 2**40, -1, -1]


# -- threads --------------------------------------------------------------------------------------------------


def test_readers_and_writers_go_on_while_a_structure_is_made_and_swapped_in() -> None:
    index, ids, vectors = compressed()
    anchors = vectors[:30]
    stop = threading.Event()
    failures: list[str] = []

    def read() -> None:
        while not stop.is_set():
            found = index.search(anchors, 1)[1][:, 0]
            if found.tolist() != ids[:30].tolist():
                failures.append(str(found.tolist()))
            time.sleep(0)

    def write(first: int) -> None:
        for start in range(first, first + 1_000, 25):
            index.add(arange(25, start), around_topics(start, 25))
            index.remove(arange(5, start))

    threads = [threading.Thread(target=read) for _ in range(2)]
    threads += [threading.Thread(target=write, args=(20_000 * part,)) for part in (1, 2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        index.retrain()
        index.wait()
    for thread in threads[2:]:
        thread.join()
    stop.set()
    for thread in threads[:2]:
        thread.join()
    index.retrain()
    index.wait()

    assert failures == []
    assert len(index) == 6_000 + 2 * 800
    assert 0 < index.swap_seconds < 0.05
    for first in (20_000, 40_000):
        for start in range(first, first + 1_000, 25):
            rows = around_topics(start, 25)
            assert index.search(rows[5:], 1)[1][:, 0].tolist() == list(range(start + 5, start + 25))
            assert not np.isin(index.search(rows[:5], 3)[1], arange(5, start)).any()


def test_many_dead_rows_are_let_go_of() -> None:
    index = VectorIndex(DIMENSION, exact_limit=100)
    vectors = around_topics(1, 300)

    for round_ in range(8):
        index.add(arange(60), vectors[round_ * 20 : round_ * 20 + 60])
        index.wait()

    assert index._rows.count < 8 * 60
    assert index.search(vectors[140:141], 1)[1].tolist() == [[0]]


# -- the GPU --------------------------------------------------------------------------------------------------


class FlatOnNoGpu(faiss.IndexFlatIP):  # type: ignore[misc]
    """FAISS's GPU index as far as memedit uses it, on the CPU."""

    def __init__(self, resources: object, dimension: int, metric: int, config: SimpleNamespace) -> None:
        assert metric == faiss.METRIC_INNER_PRODUCT
        assert config.useFloat16
        super().__init__(dimension)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "GpuIndexFlatConfig", SimpleNamespace, raising=False)
    monkeypatch.setattr(faiss, "GpuIndexFlat", FlatOnNoGpu, raising=False)


@pytest.mark.usefixtures("gpu")
def test_with_a_gpu_the_shortlist_is_made_there_and_sees_every_change() -> None:
    index, ids, vectors = compressed(half=False)
    fresh = around_topics(9, 2)

    index.add(np.array([99_999], dtype=np.int64), fresh[:1])
    index.add(ids[:1], fresh[1:2])
    index.remove(ids[1:3])

    assert recall(index, ids[3:], vectors[3:], vectors[3:300]) == 1.0
    assert index.search(fresh[:1], 1)[1].tolist() == [[99_999]]
    assert index.search(fresh[1:2], 1)[1].tolist() == [[ids[0]]]
    assert not np.isin(index.search(vectors[1:3], 10)[1], ids[1:3]).any()


@pytest.mark.usefixtures("gpu")
def test_a_loaded_index_uses_the_gpu_again(tmp_path: Path) -> None:
    index, ids, vectors = compressed()
    index.save(tmp_path / "facts.index", generation=1, fingerprint="f")

    loaded, _, _ = VectorIndex.load(tmp_path / "facts.index")

    assert loaded._backend.gpu is not None  # type: ignore[attr-defined]
    assert loaded.search(vectors[:5], 1)[1][:, 0].tolist() == ids[:5].tolist()


@pytest.mark.usefixtures("gpu")
def test_where_the_gpu_has_no_room_the_index_stays_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(faiss, "GpuIndexFlat", full, raising=False)

    with pytest.warns(RuntimeWarning, match="out of memory"):
        index, ids, vectors = compressed()

    assert index.search(vectors[:5], 1)[1][:, 0].tolist() == ids[:5].tolist()
