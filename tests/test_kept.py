"""Kept embeddings: the same bits as without, what misses, what is removed, and what goes wrong without harm."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from attempts import differences
from conftest import compose_train
from torch import Tensor

from negexp.commands import train
from negexp.config import CacheConfig, config_hash, load_run_config
from negexp.corpus import SPLITS, load_corpus
from negexp.embedding import Embeddings, TextEncoder
from negexp.kept import key
from negexp.kept.disk import Disk, Pooled, cache_folder
from negexp.kept.encoder import KeepingEncoder, Kept, is_frozen
from negexp.kept.key import Key, key_of, weights_digest
from negexp.kept.store import BLOCK_TEXTS
from negexp.model import BiEncoder, BuiltModel, Role, build_model
from negexp.runtime import Runtime, choose_runtime
from negexp.tokens import TokenTable, tokenize

WORDS = ["tax", "school", "park", "train", "court", "farm", "port", "bank", "road", "mine", "zoo", "lab"]
RUNTIME = choose_runtime("cpu", "float32", 64, 1)


def sentences(count: int = 30, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(count)]


def built(*overrides: str, seed: int = 0) -> BuiltModel:
    return build_model(compose_train("experiment=smoke", *overrides).model, seed, sentences())


def table(model: BuiltModel, texts: list[str], max_length: int = 48) -> TokenTable:
    return tokenize(texts, model.tokenizer, max_length)


def around(
    model: BiEncoder, tokens: TokenTable, disk: Disk | None, runtime: Runtime = RUNTIME, untrained: bool = True
) -> KeepingEncoder:
    """Return the encoder of a new process."""
    return KeepingEncoder(model, tokens, runtime, kept=Kept(lambda: untrained, "auto", disk))


def bits(embeddings: Embeddings) -> list[Tensor]:
    return [part for role in (embeddings.query, embeddings.candidate) for part in (role.retrieval, role.pooled)]


def assert_same_bits(found: Embeddings, expected: Embeddings) -> None:
    for one, other in zip(bits(found), bits(expected), strict=True):
        assert torch.equal(one, other)
    assert (found.row == expected.row).all()


def counted(patch: pytest.MonkeyPatch) -> list[int]:
    """Return the number of texts of every call of a model without gradients."""
    found: list[int] = []
    forward = BiEncoder.forward

    def counting(self: BiEncoder, ids: Tensor, mask: Tensor, role: Role) -> tuple[Tensor, Tensor]:
        if not torch.is_grad_enabled():
            found.append(len(ids))
        return forward(self, ids, mask, role)

    patch.setattr(BiEncoder, "forward", counting)
    return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return counted(monkeypatch)


@contextmanager
def logged() -> Iterator[list[str]]:
    """Yield the lines of negexp's log."""
    lines: list[str] = []
    handler, log = logging.Handler(), logging.getLogger("negexp")
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


# --- the same bits -------------------------------------------------------------------------------------------------

MODELS = {
    "a head": ["model.retrieval_dim=16"],
    "no head, normalised": ["model.retrieval_dim=null", "model.normalize=true", "model.pooling=mean"],
    "pooler": ["model.pooling=pooler", "model.normalize=true"],
    "two encoders": ["model.shared_encoder=false", "model.pooling=cls"],
    "a query head": ["model.query_head=residual", "model.pooling=mean"],
    "not fused": ["model.layers=2"],
}


@pytest.mark.parametrize("case", MODELS)
def test_embeddings_have_the_same_bits_whether_computed_or_read(case: str, tmp_path: Path, calls: list[int]) -> None:
    config = compose_train("experiment=smoke", *MODELS[case])
    fused = "off" if case == "not fused" else "auto"
    model = build_model(config.model, 0, sentences(), fused=fused)
    with torch.no_grad():  # a new query head adds nothing
        for parameter in model.model.head_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 4)
    tokens, texts = table(model, sentences()), np.array([7, 3, 28, 3, 12, 0, 19, 25, 1])
    expected = TextEncoder(model.model, tokens, RUNTIME).embed(texts, "texts")
    plainly = len(calls)
    first = around(model.model, tokens, Disk(tmp_path, 2**20))
    assert_same_bits(first.embed(texts, "texts"), expected)
    roles = 2 if case == "two encoders" else 1
    assert len(calls) == plainly + plainly // roles  # two new encoders are copies of each other
    assert plainly // roles > 2
    calls.clear()
    later = around(model.model, tokens, Disk(tmp_path, 2**20))
    assert_same_bits(later.embed(texts, "texts"), expected)
    assert calls == []
    assert [(reuse.what, reuse.from_disk) for reuse in later.kept.reused] == [("texts", True)] * roles
    assert first.kept.memory == {} == later.kept.memory


def test_other_heads_read_the_same_encoder(tmp_path: Path, calls: list[int]) -> None:
    for seed in (0, 1):
        model = built("model.retrieval_dim=16")
        if seed:
            model.model.load_state_dict(
                {
                    name: torch.randn_like(value) if ".head." in name else value
                    for name, value in model.model.state_dict().items()
                }
            )
        tokens = table(model, sentences())
        found = around(model.model, tokens, Disk(tmp_path, 2**20)).embed(np.arange(30), "texts")
        read = len(calls)
        assert_same_bits(found, TextEncoder(model.model, tokens, RUNTIME).embed(np.arange(30), "texts"))
        assert (read > 0) == (seed == 0)
        calls.clear()


class Ran(NamedTuple):
    """A run: its folder, the number of texts that it embedded, and the lines of its log."""

    folder: Path
    embedded: int
    log: list[str]


CACHES = {
    "without": "cache.keep=false",
    "first": "cache.folder={}/C",
    "second": "cache.folder={}/C",
    "memory": "cache.folder={}/F",
}
ENCODERS = {
    "trained": ["trainer.average=ema", "evaluation.train_queries=4", "trainer.epochs=1"],
    "frozen": ["model.freeze_encoder=true", "model.query_head=residual", "trainer.epochs=2"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Ran]:
    """Return a function that trains once with a kind of encoder and of cache (C: a folder, F: a file in its place)."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "F").write_text("no folder")
    found: dict[tuple[str, str], Ran] = {}

    def run(encoder: str, kept: str) -> Ran:
        if (encoder, kept) not in found:
            own = [*ENCODERS[encoder], "data.max_pairs=12", CACHES[kept].format(folder)]
            with pytest.MonkeyPatch.context() as patch, logged() as lines:
                calls = counted(patch)
                train.run(compose_train("experiment=smoke", *own), folder / encoder / kept, own)
            found[encoder, kept] = Ran(folder / encoder / kept, sum(calls), lines)
        return found[encoder, kept]

    return run


@pytest.mark.runs
def test_runs_have_the_same_files_with_and_without_kept_embeddings(runs: Callable[[str, str], Ran]) -> None:
    for encoder, kept in (("trained", "first"), ("trained", "second"), ("frozen", "memory")):
        changed = differences(runs(encoder, kept).folder, runs(encoder, "without").folder)
        assert changed == ["config.yaml", "result.json"]  # the keys of the cache


def test_only_untrained_embeddings_are_written_and_read(runs: Callable[[str, str], Ran]) -> None:
    without, first, second = (runs("trained", kept) for kept in ("without", "first", "second"))
    root = first.folder.parent.parent / "C" / "embeddings"
    assert len(list(root.iterdir())) == 3  # train, validation, test
    own = load_corpus(load_run_config(first.folder / "config.yaml").data)
    texts = {split: len(own[split].texts()) for split in SPLITS}
    # the average of the weights is a model of its own, which embeds training again unless it was embedded before
    assert without.embedded - first.embedded == texts["train"]
    assert first.embedded - second.embedded == sum(texts.values())
    assert not [line for line in without.log if "saved" in line]
    (line,) = (line for line in second.log if "saved" in line)
    assert line.startswith(f"embeddings of validation, test, train read from {root}: ")
    assert line.endswith(" s of embedding saved")


def test_a_frozen_encoder_embeds_each_split_once(runs: Callable[[str, str], Ran]) -> None:
    without, memory = runs("frozen", "without"), runs("frozen", "memory")
    own = load_corpus(load_run_config(memory.folder / "config.yaml").data)
    texts = {split: len(own[split].texts()) for split in SPLITS}
    # again: training and validation after each epoch, both evaluated splits with the best epoch, and training's steps
    again = 3 * texts["train"] + 3 * texts["validation"] + texts["test"]
    assert without.embedded - memory.embedded == again
    assert memory.embedded == sum(texts.values())
    assert sum("cannot be written" in line for line in memory.log) == 1  # one line for all splits
    (line,) = (line for line in memory.log if "saved" in line)
    assert line.startswith("the frozen encoder's embeddings were used again 7 times: ")


# --- a frozen encoder ----------------------------------------------------------------------------------------------


def test_a_frozen_encoder_is_read_from_memory_though_its_head_is_trained(tmp_path: Path, calls: list[int]) -> None:
    model = built("model.freeze_encoder=true", "model.retrieval_dim=16").model
    tokens = table(built(), sentences())
    encoder = around(model, tokens, None, untrained=False)
    for _ in range(3):
        with torch.no_grad():
            for parameter in model.head_parameters():
                parameter.mul_(1.5)
        expected = TextEncoder(model, tokens, RUNTIME).embed(np.arange(30), "texts")
        calls.clear()
        assert_same_bits(encoder.embed(np.arange(30), "texts"), expected)
        computed = len(calls)
    assert computed == 0
    assert len(encoder.kept.reused) == 2


def test_an_encoder_with_a_trained_layer_is_not_frozen() -> None:
    assert is_frozen(built("model.freeze_encoder=true").model.tower("query"))
    partly = built("model.layers=2", "model.freeze_layers=1").model
    assert not is_frozen(partly.tower("query"))
    encoder = around(partly, table(built(), sentences()), None, untrained=False)
    assert not encoder.kept.serves(partly.tower("query"))


# --- what misses ---------------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """All that a key is made of, before a change."""

    model: BuiltModel
    texts: list[str]
    max_length: int
    runtime: Runtime
    fused: str


def name_of(setting: Setting, texts: list[int] | None = None) -> str:
    tokens = table(setting.model, setting.texts, setting.max_length)
    rows = np.unique(tokens.row[texts or np.arange(len(setting.texts))])
    encoder = TextEncoder(setting.model.model, tokens, setting.runtime)
    return key_of(encoder, setting.model.model.tower("candidate"), rows, setting.fused).name()


def one_bit(setting: Setting) -> Setting:
    with torch.no_grad():
        weight = next(setting.model.model.tower("candidate").encoder.parameters())
        weight.view(torch.int32)[3, 2] ^= 1
    return setting


def other_tokenizer(setting: Setting) -> Setting:
    other = build_model(compose_train("experiment=smoke").model, 0, sentences(seed=5))
    return setting._replace(model=setting.model._replace(tokenizer=other.tokenizer))


def changed_config(setting: Setting) -> Setting:
    setting.model.model.tower("candidate").encoder.config.layer_norm_eps = 1e-6
    return setting


def pooled_otherwise(setting: Setting) -> Setting:
    setting.model.model.tower("candidate").pooling = "cls"
    return setting


def with_runtime(**changes: Any) -> Callable[[Setting], Setting]:
    return lambda setting: setting._replace(runtime=replace(setting.runtime, **changes))


CHANGES: dict[str, Callable[[Setting], Setting]] = {
    "one bit of a weight": one_bit,
    "a text": lambda setting: setting._replace(texts=["zoo zoo", *setting.texts[1:]]),
    "one text more": lambda setting: setting._replace(texts=[*setting.texts, "zoo zoo"]),
    "the order of the texts": lambda setting: setting._replace(texts=setting.texts[::-1]),
    "the tokenizer": other_tokenizer,
    "max_length": lambda setting: setting._replace(max_length=8),
    "precision": with_runtime(bfloat16=True),
    "threads": with_runtime(threads=3),
    "the size of batches": with_runtime(tokens_per_batch=4096),
    "fused": lambda setting: setting._replace(fused="off"),
    "the encoder's configuration": changed_config,
    "pooling": pooled_otherwise,
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_of_what_the_bits_depend_on_misses(case: str) -> None:
    before = name_of(Setting(built(), sentences(), 48, RUNTIME, "auto"))
    assert name_of(Setting(built(), sentences(), 48, RUNTIME, "auto")) == before
    assert name_of(CHANGES[case](Setting(built(), sentences(), 48, RUNTIME, "auto"))) != before


def test_another_machine_or_version_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name_of(Setting(built(), sentences(), 48, RUNTIME, "auto"))]
    with monkeypatch.context() as patch:
        patch.setattr(key, "processor_name", lambda: "another")
        names.append(name_of(Setting(built(), sentences(), 48, RUNTIME, "auto")))
    with monkeypatch.context() as patch:
        patch.setattr(key, "versions", lambda: {"torch": "3"})
        names.append(name_of(Setting(built(), sentences(), 48, RUNTIME, "auto")))
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    names.append(name_of(Setting(built(), sentences(), 48, RUNTIME, "auto")))
    assert len(set(names)) == 4


def test_what_changes_no_bit_does_not_miss() -> None:
    before = Setting(built(), sentences(), 48, RUNTIME, "auto")
    moved = built("model.dropout=0.1")
    moved.encoder_config._name_or_path = "/another/copy"
    texts = [*sentences()[:-1], sentences()[-1].upper()]  # the tokenizer lowers case
    assert name_of(Setting(moved, texts, 47, RUNTIME, "auto")) == name_of(before)


def test_the_digest_of_weights_is_that_of_their_bytes() -> None:
    layer = torch.nn.Linear(3, 2)
    expected = hashlib.sha256()
    for name, value in (("bias", layer.bias), ("weight", layer.weight)):
        expected.update(f"{name} torch.float32 {tuple(value.shape)}\n".encode())
        expected.update(value.detach().numpy().tobytes())
    assert weights_digest(layer) == expected.hexdigest()


# --- the folder ----------------------------------------------------------------------------------------------------


def a_key(number: int, texts: int = 4, size: int = 8) -> Key:
    digests = [bytes([number, row]) + bytes(30) for row in range(texts)]
    return Key(f"{number:016x}".ljust(64, "0"), {"number": number}, digests, size)


def some(number: int, texts: int = 4, size: int = 8) -> Pooled:
    return Pooled(torch.full((texts, size), float(number)), 2.0)


def entries(root: Path) -> list[int]:
    return sorted(int(path.name[:16], 16) for path in root.iterdir() if path.is_dir())


def bytes_of(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def used(disk: Disk, number: int, ago: int) -> None:
    """Let a key be used for the last time so many seconds ago."""
    (folder,) = (path for path in disk.root.iterdir() if int(path.name[:16], 16) == number)
    os.utime(folder, (10**9 - ago, 10**9 - ago))


def test_the_least_recently_used_embeddings_are_removed_first(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "a", 2**20)
    for number in (1, 2, 3):
        disk.write(a_key(number), some(number))
    one = bytes_of(disk.root) // 3
    disk.most_bytes = 3 * one + one // 2
    for ago, number in enumerate((2, 1, 3)):
        used(disk, number, ago)
    assert disk.read(a_key(3)) is not None  # it was the oldest, and is used now
    disk.write(a_key(4), some(4))
    assert entries(disk.root) == [2, 3, 4]
    assert disk.read(a_key(1)) is None
    disk.most_bytes = one + one // 2
    disk.write(a_key(5), some(5))
    assert entries(disk.root) == [5]
    assert bytes_of(disk.root) <= disk.most_bytes


def test_other_things_in_the_folder_stay(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "a", 600)
    disk.root.mkdir()
    (disk.root / "notes.txt").write_text("mine" * 1000)
    (disk.root / "models").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("x" * 5000)
    (disk.root / f"{0:016x}-{0:016x}").symlink_to(tmp_path / "elsewhere")
    for number in (1, 2, 3):
        disk.write(a_key(number), some(number))
    assert (disk.root / "notes.txt").exists()
    assert (disk.root / "models").exists()
    assert (tmp_path / "elsewhere" / "file").exists()
    assert len(list(disk.root.iterdir())) == 4  # of the three keys, one fits


def test_what_is_larger_than_the_bound_is_not_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "negexp")
    disk = Disk(tmp_path / "a", 100)
    for number in (1, 2):
        disk.write(a_key(number), some(number))
    assert not disk.root.exists()
    assert caplog.messages == ["cache.max_bytes=100: 272 bytes of embeddings are not kept for other runs"]


def test_many_texts_are_several_blocks_and_all_are_needed(tmp_path: Path) -> None:
    count = BLOCK_TEXTS + 5
    many = Key("a" * 64, {}, [row.to_bytes(32, "little") for row in range(count)], 2)
    vectors = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    disk = Disk(tmp_path / "a", 2**30)
    disk.write(many, Pooled(vectors, 3.0))
    found = disk.read(many)
    assert found is not None
    assert torch.equal(found.vectors, vectors)
    assert found.seconds == pytest.approx(3.0, rel=1e-4)
    blocks = sorted(disk.root.glob("*/*.safetensors"))
    assert len(blocks) == 2
    blocks[0].unlink()
    assert disk.read(many) is None


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "one bit": damaged,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "a pickle": lambda path: path.write_bytes(b"\x80\x04\x95cos\nsystem\n."),
    "a link": linked,
    "a pipe": piped,
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_or_hostile_file_is_ignored_and_written_again(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(tmp_path / "a", 2**20)
    disk.write(a_key(1), some(1))
    (file,) = disk.root.glob("*/*")
    before = file.read_bytes()
    DAMAGES[case](file)
    assert disk.read(a_key(1)) is None
    assert caplog.messages == [f"{file.parent}: 1 of 1 files are damaged; their texts are embedded again"]
    disk.write(a_key(1), some(1))
    assert file.read_bytes() == before
    assert disk.read(a_key(1)) is not None


def work(root: Path, worker: int, results: Any) -> None:
    """Read and write keys that another process reads, writes and removes at the same time."""
    disk, wrong = Disk(root, 3000), 0
    for turn in range(60):
        number = (turn * (worker + 1)) % 7 + 1
        found = disk.read(a_key(number))
        if found is None:
            disk.write(a_key(number), some(number))
        elif not torch.equal(found.vectors, some(number).vectors):
            wrong += 1
    results.put((wrong, disk.writable))


def test_processes_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    workers = [fork.Process(target=work, args=(tmp_path / "a", worker, results)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [results.get() for _ in workers] == [(0, True)] * 3
    assert bytes_of(tmp_path / "a") <= 3000 + 3 * 700  # each may have written one more before it tidied
    assert not list((tmp_path / "a").glob("*/.*"))


def test_a_folder_that_vanishes_while_it_is_written_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replace_file = os.replace
    removed: list[Path] = []

    def vanishing(source: Path, target: Path) -> None:
        if not removed:
            removed.append(target)
            shutil.rmtree(Path(target).parent)
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", vanishing)
    disk = Disk(tmp_path / "a", 2**20)
    disk.write(a_key(1), some(1))
    assert removed
    assert disk.read(a_key(1)) is not None
    assert caplog.messages == []


# --- where it is ---------------------------------------------------------------------------------------------------


def cache(folder: str | None = None) -> CacheConfig:
    return replace(compose_train().cache, folder=folder)


def test_the_folder_is_the_given_one_or_that_of_the_users_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(cache()) == tmp_path / "xdg" / "negexp"
    assert cache_folder(cache("~/mine")) == tmp_path / "home" / "mine"
    for ignored in ("", "relative"):  # as the specification of XDG says
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder(cache()) == tmp_path / "home" / ".cache" / "negexp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    (tmp_path / "scratch").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".cache").symlink_to(tmp_path / "scratch")  # as on clusters
    assert cache_folder(cache()) == tmp_path / "scratch" / "negexp"


def test_without_a_home_folder_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    caplog.set_level(logging.INFO, "negexp")
    disk = Disk.of(cache())
    assert disk is None
    assert caplog.messages == [
        "no home folder: embeddings are not kept for other runs; cache.folder=DIR gives them a place"
    ]
    model, tokens = built().model, table(built(), sentences())
    expected = TextEncoder(model, tokens, RUNTIME).embed(np.arange(30), "texts")
    assert_same_bits(around(model, tokens, disk).embed(np.arange(30), "texts"), expected)


def test_the_keys_change_no_result() -> None:
    plain, other = compose_train(), compose_train("cache.keep=false", "cache.folder=elsewhere", "cache.max_bytes=1")
    assert plain.cache.keep
    assert config_hash(plain) == config_hash(other)
