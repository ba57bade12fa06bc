"""Oracles: a hand-computed Witten-Bell model, probabilities that sum to one, and the text itself after a round trip."""

import gzip
import hashlib
import sysconfig
from fractions import Fraction
from math import log
from pathlib import Path

import numpy as np
import pytest

from strobe.models.corpus import (
    SEPARATOR,
    Document,
    PythonCorpus,
    WittenBell,
    baselines,
    split_of,
    standard_library_documents,
    train_tokenizer,
)
from strobe.models.corpus.baselines import gzip_bits_per_byte

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A small library: three packages of the running Python, and what must be left out."""
    stdlib, root = Path(sysconfig.get_paths()["stdlib"]), tmp_path_factory.mktemp("stdlib")
    for package in ("json", "email", "logging", "importlib"):
        for file in sorted((stdlib / package).glob("*.py")):
            (root / package).mkdir(exist_ok=True)
            (root / package / file.name).write_bytes(file.read_bytes())
    for left_out in (
        "test/test_x.py",
        "site-packages/x.py",
        "json/__pycache__/x.py",
        "encodings/x.py",
        "pydoc_data/topics.py",
        "_sysconfigdata__linux.py",
        "config-3.11-x/python-config.py",
        "sitecustomize.py",
    ):
        (root / left_out).parent.mkdir(exist_ok=True)
        (root / left_out).write_text("left_out = True\n")
    (root / "json" / "latin.py").write_bytes(b"# caf\xe9\n")
    (root / "json" / "separator.py").write_bytes(f"x = '{SEPARATOR}'\r\ny = 'é 漢 🙂'\r\n".encode())
    return root


@pytest.fixture(scope="module")
def corpus(source, tmp_path_factory) -> PythonCorpus:
    return PythonCorpus.build(source=source, vocab_size=400, cache=tmp_path_factory.mktemp("cache"))


def test_only_the_library_itself_is_read(source):
    documents, not_utf8 = standard_library_documents(source)
    assert not_utf8 == ["json/latin.py"]
    paths = [d.path for d in documents]
    assert paths == sorted(paths) and {p.split("/")[0] for p in paths} == {"json", "email", "logging", "importlib"}
    assert all("left_out" not in d.text for d in documents)


def test_no_source_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="found none; use a Python installed with its source"):
        standard_library_documents(tmp_path)


def test_a_split_is_the_hash_of_the_path():
    paths = [f"package/module_{i}.py" for i in range(4000)]
    for path in paths[:50]:
        u = int(hashlib.sha256(path.encode()).hexdigest()[:16], 16) / 16**16
        assert split_of(path) == ("valid" if u < 0.05 else "test" if u < 0.1 else "train")
    share = {s: sum(split_of(p) == s for p in paths) / len(paths) for s in SPLITS}
    # Five standard deviations of a binomial with p = 0.05 and 4000 draws.
    assert abs(share["valid"] - 0.05) < 0.018 and abs(share["test"] - 0.05) < 0.018


def test_tokens_are_the_documents(corpus):
    tokenizer = corpus.tokenizer()
    separator = tokenizer.convert_tokens_to_ids(SEPARATOR)
    for split in SPLITS:
        documents, tokens = corpus.documents(split), corpus.tokens(split)
        assert documents and tokens.dtype == np.uint16 and not tokens.flags.writeable
        assert tokens[0] == separator and (tokens == separator).sum() == len(documents)
        assert tokenizer.decode(tokens.tolist()) == "".join(SEPARATOR + d.text for d in documents)
        n_bytes = sum(len(d.text.encode()) for d in documents)
        assert corpus.n_bytes(split) == n_bytes and corpus.n_tokens(split) == len(tokens)
        assert corpus.bytes_per_token(split) == n_bytes / len(tokens)


def test_splits_share_no_file_and_miss_none(corpus, source):
    paths = [d.path for split in SPLITS for d in corpus.documents(split)]
    assert sorted(paths) == [d.path for d in standard_library_documents(source)[0]]


def test_any_text_comes_back(corpus):
    tokenizer = corpus.tokenizer()
    every_byte = "".join(map(chr, range(0x250))) + "\u2028\ufeff\U0010ffff 漢字\r\n\t  e\u0301 don 't . , \x00"
    rng = np.random.default_rng(0)
    points = rng.integers(0x110000, size=3000)
    random_text = "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
    for text in (every_byte, random_text, "", " ", "\n\n    return x\n"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert tokenizer.bos_token == tokenizer.eos_token == tokenizer.pad_token == SEPARATOR
    assert tokenizer(SEPARATOR)["input_ids"] == [tokenizer.bos_token_id]


def test_the_tokenizer_is_trained_on_the_training_part_and_nothing_else(corpus):
    again = train_tokenizer((d.text for d in corpus.documents("train")), 400)
    assert again.to_str() == _stored(corpus)
    other = train_tokenizer((d.text for split in SPLITS for d in corpus.documents(split)), 400)
    assert other.to_str() != _stored(corpus)


def _stored(corpus: PythonCorpus) -> str:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(corpus.tokenizer_path)).to_str()


def test_a_second_build_reads_the_cache_and_another_content_does_not(corpus, source, tmp_path):
    cache = corpus.folder.parent.parent
    stamp = (corpus.folder / "train.npy").stat().st_mtime_ns
    again = PythonCorpus.build(source=source, vocab_size=400, cache=cache)
    assert again.folder == corpus.folder and (again.folder / "train.npy").stat().st_mtime_ns == stamp
    assert [p.name for p in corpus.folder.parent.iterdir()] == [corpus.folder.name], (
        "a temporary folder was left behind"
    )
    copy = tmp_path / "copy"
    (copy / "json").mkdir(parents=True)
    for file in (source / "json").glob("*.py"):
        (copy / "json" / file.name).write_bytes(file.read_bytes())
    options = {"source": copy, "tokenizer": corpus.tokenizer_path, "cache": tmp_path}
    before = PythonCorpus.build(**options)
    assert before.tokenizer_path.read_text() == corpus.tokenizer_path.read_text()
    (copy / "json" / "__init__.py").write_bytes((source / "json" / "__init__.py").read_bytes() + b"\n")
    after = PythonCorpus.build(**options)
    assert after.digest != before.digest and after.folder != before.folder
    split = split_of("json/__init__.py")
    assert after.n_bytes(split) == before.n_bytes(split) + 1


def test_the_cache_folder_follows_the_user(monkeypatch, source, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert PythonCorpus.build(source=source, vocab_size=300).folder.is_relative_to(tmp_path / "strobe" / "corpus")


def test_damaged_tokens_are_refused(source, tmp_path):
    corpus = PythonCorpus.build(source=source, vocab_size=300, cache=tmp_path)
    tokens = corpus.tokens("valid").copy()
    tokens[3] += 1
    np.save(corpus.folder / "valid.npy", tokens)
    with pytest.raises(ValueError, match=r"not those written there; delete the folder"):
        corpus.tokens("valid")


def test_what_cannot_be_asked_for(corpus, source, tmp_path):
    with pytest.raises((ValueError, TypeError), match="validation"):
        corpus.tokens("validation")
    with pytest.raises(ValueError, match=r"256 bytes and .* already take 257"):
        train_tokenizer(["x"], 200)
    with pytest.raises(ValueError, match="train on more text or ask for fewer"):
        train_tokenizer(["abab"], 1024)


def _by_hand(tokens: list[int], history: list[int], w: int, vocab: int) -> Fraction:
    """The recursion of the module's docstring, over lists."""
    if history is None:
        return Fraction(1, vocab)
    lower = _by_hand(tokens, history[1:] if history else None, w, vocab)
    n = len(history)
    after = [tokens[i + n] for i in range(len(tokens) - n) if tokens[i : i + n] == history]
    if not after:
        return lower
    return (after.count(w) + len(set(after)) * lower) / (len(after) + len(set(after)))


def test_witten_bell_by_hand():
    # a a b a over {a, b, c}. P1(a) = (3 + 2/3) / (4 + 2) = 11/18, P1(b) = (1 + 2/3) / 6 = 5/18, P1(c) = 1/9.
    # After a: a once, b once, so P2(b | a) = (1 + 2 * 5/18) / (2 + 2) = 7/18. After b: a once: P2(c | b) = (1/9) / 2.
    # c was never followed by anything: P2(. | c) = P1.
    model = WittenBell(np.array([0, 0, 1, 0]), order=2, vocab=3)
    np.testing.assert_allclose(model.distribution(np.array([0]))[1], 7 / 18, rtol=1e-14)
    np.testing.assert_allclose(model.distribution(np.array([1]))[2], 1 / 18, rtol=1e-14)
    np.testing.assert_allclose(model.distribution(np.array([2])), [11 / 18, 5 / 18, 1 / 9], rtol=1e-14)
    np.testing.assert_allclose(
        model.probabilities(np.array([0, 1, 2, 1])), [11 / 18, 7 / 18, 1 / 18, 5 / 18], rtol=1e-14
    )
    nats = model.nats_per_token(np.array([0, 1, 2, 1]))
    np.testing.assert_allclose(nats, -(log(11 / 18) + log(7 / 18) + log(1 / 18) + log(5 / 18)) / 4, rtol=1e-14)


def test_witten_bell_of_order_five_sums_to_one_and_agrees_with_the_recursion():
    rng = np.random.default_rng(0)
    tokens, vocab = rng.integers(4, size=300), 5
    model = WittenBell(tokens.astype(np.uint16), order=5, vocab=vocab)
    held_out = rng.integers(vocab, size=40)
    scored = model.probabilities(held_out)
    for i, w in enumerate(held_out):
        history = held_out[max(i - 4, 0) : i]
        distribution = model.distribution(held_out[:i])
        np.testing.assert_allclose(distribution.sum(), 1, rtol=1e-12)
        expected = float(_by_hand(tokens.tolist(), history.tolist(), int(w), vocab))
        np.testing.assert_allclose([distribution[w], scored[i]], expected, rtol=1e-12)


def test_witten_bell_refuses_what_it_cannot_count():
    with pytest.raises(ValueError, match="ask for an order of at least 1 that fits"):
        WittenBell(np.arange(10), order=7, vocab=1024)
    with pytest.raises(ValueError, match=r"found 2 training tokens; give at least 3"):
        WittenBell(np.arange(2), order=3, vocab=10)
    with pytest.raises(ValueError, match=r"0\.\.4 were expected; found 0\.\.9"):
        WittenBell(np.arange(10), order=2, vocab=5)


def test_gzip_is_bits_of_the_stream_per_byte():
    documents = [Document("a.py", "x = 1\n" * 50), Document("b.py", "é" * 10)]
    joined = ("x = 1\n" * 50 + "é" * 10).encode()
    assert gzip_bits_per_byte(documents) == 8 * len(gzip.compress(joined, 9, mtime=0)) / 320
    assert gzip_bits_per_byte(documents, per_file=True) > gzip_bits_per_byte(documents)


def test_baselines_are_ordered_as_they_must_be(corpus):
    figures = baselines(corpus, "valid")
    bits = corpus.n_tokens("valid") / corpus.n_bytes("valid")
    np.testing.assert_allclose(figures["uniform_token"], np.log2(400) * bits, rtol=1e-12)
    assert figures["witten_bell_5"] < figures["unigram"] < figures["uniform_token"] < 8
    assert figures["gzip"] < figures["gzip_per_file"] < 8
    five = WittenBell(corpus.tokens("train"), order=5, vocab=400).probabilities(corpus.tokens("valid"))
    np.testing.assert_allclose(figures["witten_bell_5"], -np.log2(five).sum() / corpus.n_bytes("valid"), rtol=1e-12)
