"""Configuration: the real YAML files compose and parse, and every wrong value is refused with its key and value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_origin

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from negexp import runtime
from negexp.application.compose import configure
from negexp.command import find
from negexp.components import KINDS, Options
from negexp.components.options import Rule, rules
from negexp.config import (
    CONF_DIR,
    EvaluateConfig,
    TrainConfig,
    config_hash,
    load_run_config,
    parse_config,
    parse_train,
    to_yaml,
)
from negexp.errors import InputError
from negexp.losses.triplet_ce import TripletCrossEntropyOptions
from negexp.runtime import choose_runtime
from negexp.sampling.samplers.decay import DecayOptions
from negexp.world import World

NAN, INFINITY = float("nan"), float("inf")


@cache
def composed(command: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(config_dir=str(CONF_DIR), version_base="1.3"):
        return compose(command, list(overrides))


def train_config(*overrides: str) -> TrainConfig:
    return parse_train(composed("train", *overrides))


def with_values(config: DictConfig, **values: object) -> DictConfig:
    """Return a copy with other values; a `__` in a name is the dot of a key."""
    changed = config.copy()
    OmegaConf.set_struct(changed, False)
    for name, value in values.items():
        OmegaConf.update(changed, name.replace("__", "."), value, merge=False, force_add=True)
    return changed


def declared(command: str, section: object, prefix: str = "") -> Iterator[tuple[str, tuple[str, Any, Rule]]]:
    """Yield every key below a section, with its command, its type and its rule."""
    assert isinstance(section, Options)
    for name, (annotation, rule) in rules(type(section)).items():
        value = getattr(section, name)
        if isinstance(value, Options):
            yield from declared(command, value, f"{prefix}{name}.")
        elif rule.kind is None:
            yield f"{prefix}{name}", (command, annotation, rule)


NEEDED = {
    "mine": ["output=x"],
    "report": ["runs=x"],
    "train": ["loss=triplet_ce"],
}  # overrides: what must be given, and a loss with numbers
# of all keys of all commands: a key that two commands have is the first one's
RULES = {
    key: found
    for command in ("report", "bench", "evaluate", "mine", "train")
    for key, found in declared(command, parse_config(composed(command, *NEEDED.get(command, [])), find(command).schema))
}


# --- what conf/ holds ---------------------------------------------------------------------------------------------

OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in CONF_DIR.glob("*/*.yaml"))
OTHER_NAMES = {"sampler=bm25": "hard", "loss=info_nce_listwise": "weighted_sum"}  # presets of these components
EXPERIMENTS = [option for option in OPTIONS if option.startswith("experiment=")]
ORIGINALS = [option for option in EXPERIMENTS if option.startswith("experiment=original")]


def needs_path(option: str) -> bool:
    overlay = (CONF_DIR / "experiment" / f"{option.removeprefix('experiment=')}.yaml").is_file()
    return option in ("data=arguana", "data=beir", "data=datasets", "data=pairs") or (
        overlay and composed("train", option).data.name != "demo"
    )


@pytest.mark.parametrize("option", [option for option in OPTIONS if option != "model=bm25"])
def test_every_option_of_train_composes_and_parses(option: str) -> None:
    path = ["data.path=x"] if needs_path(option) else []
    group, _, name = option.partition("=")
    if (group == "tracker" and name != "default") or option == "index=faiss":
        pytest.importorskip(name)  # its package comes with an extra
    schedule = ["sampler=scheduled", f"schedule@sampler.random_rate={name}"]
    config = train_config(*(schedule if group == "schedule" else [option]), *path)
    if group in ("data", "sampler", "batch", "index", "loss"):
        assert getattr(config, group).name == OTHER_NAMES.get(option, name)


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.split("=")[0] in ("data", "model", "evaluation")])
def test_every_option_of_evaluate_composes_and_parses(option: str) -> None:
    parse_config(composed("evaluate", option, *(["data.path=x"] if needs_path(option) else [])), EvaluateConfig)


@pytest.mark.parametrize("option", EXPERIMENTS)
@pytest.mark.parametrize("data", ["arguana", "pairs"])
def test_every_experiment_takes_another_corpus(option: str, data: str) -> None:
    if data == "pairs" and option.endswith("_no_titles"):
        pytest.skip("only ArguAna has titles that can be dropped")
    config = train_config(option, f"data={data}", "data.path=x")
    assert (config.data.name, config.data.path) == (data, "x")


def test_every_number_has_a_range() -> None:
    numbers = {key for key, (_, annotation, _) in RULES.items() if {int, float} & {annotation, *get_args(annotation)}}
    assert len(numbers) > 40
    assert {key for key in numbers if RULES[key][2].low is None} == set()


def test_every_key_has_a_line_of_help() -> None:
    plain = {"name", "optimizer", "weight_decay", "split", "seed"}  # their names say it all
    silent = {key for key, (_, _, rule) in RULES.items() if not rule.help}
    assert {key for key in silent if key.rpartition(".")[2] not in plain} == set()


# --- the presets of the original (DESIGN section 9) ---------------------------------------------------------------


@pytest.mark.parametrize("option", ORIGINALS)
def test_original_presets_share_the_constants_of_the_scripts(option: str) -> None:
    config = train_config(option)
    model, trainer, loss = config.model, config.trainer, config.loss
    assert isinstance(loss, TripletCrossEntropyOptions)
    assert (config.data.train_overlap, config.data.copies, config.data.match) == ("keep", "keep", "exact")
    assert config.sampler.exclude == ["self"]
    assert (config.sampler.num_negatives, config.sampler.refresh_every) == (1, 1)
    assert (config.batch.name, config.batch.separate_copies) == ("shuffled", False)
    assert (config.index.name, config.index.leaf_size) == ("balltree", 2)
    assert (model.pretrained, model.pooling, model.retrieval_dim) == ("bert-base-uncased", "pooler", 128)
    assert (model.classifier_features, model.layer_norm, model.activation) == ("concat", False, "none")
    assert (model.shared_encoder, model.freeze_encoder, model.normalize) == (True, False, False)
    assert (loss.name, loss.margin) == ("triplet_ce", 1.0)
    assert (loss.triplet_weight, loss.positive_weight, loss.negative_weight) == (1.0, 1.0, 1.0)
    assert (trainer.optimizer, trainer.lr, trainer.head_lr) == ("adam", 3e-6, 3e-6)
    assert (trainer.batch_size, trainer.accumulation, trainer.epochs) == (8, 1, 200)
    assert (trainer.weight_decay, trainer.warmup_steps, trainer.gradient_clip) == (0.0, 0, None)


@pytest.mark.parametrize(
    ("preset", "name", "rates", "candidates"),
    [
        ("original_decay_0.8", "decay", (0.8, 0.02, 0.0), "both"),
        ("original_decay_1.0", "decay", (1.0, 0.02, 0.0), "both"),
        ("original_random", "random", None, "both"),
        ("original_hard", "hard", None, "both"),
        ("original_static", "static", None, "counters"),
    ],
)
def test_original_presets_differ_in_the_sampler_only(
    preset: str, name: str, rates: tuple[float, float, float] | None, candidates: str
) -> None:
    config = train_config(f"experiment={preset}")
    sampler = config.sampler
    assert (sampler.name, sampler.candidates) == (name, candidates)
    found = tuple(getattr(sampler, key, None) for key in ("start_rate", "step", "end_rate"))
    assert found == (rates or (None, None, None))
    assert replace(config, sampler=train_config("experiment=original").sampler) == train_config("experiment=original")


def test_original_steps_are_an_override_away() -> None:
    sampler = train_config("experiment=original_decay_1.0", "sampler.step=0.005").sampler
    assert isinstance(sampler, DecayOptions)
    assert (sampler.start_rate, sampler.step) == (1.0, 0.005)


@pytest.mark.parametrize("model", ["tiny", "minilm", "bert_base"])
def test_models_bring_learning_rates_that_the_trainer_may_replace(model: str) -> None:
    config = train_config(f"model={model}")
    assert (config.trainer.lr, config.trainer.head_lr) == (config.model.default_lr, config.model.default_head_lr)
    assert train_config(f"model={model}", "trainer.lr=0.125").trainer.lr == 0.125


# --- refusals -----------------------------------------------------------------------------------------------------

Refusal = tuple[dict[str, object], str]
TRAIN_REFUSALS: list[Refusal] = [
    ({"sampler__start_rate": 1.01}, "sampler.start_rate=1.01: must be between 0 and 1"),
    ({"sampler__start_rate": -0.1}, "sampler.start_rate=-0.1: must be between 0 and 1"),
    ({"sampler__end_rate": 1.5}, "sampler.end_rate=1.5: must be between 0 and 1"),
    ({"sampler__end_rate": -1e-9}, "sampler.end_rate=-1e-09: must be between 0 and 1"),
    ({"sampler__step": -0.02}, "sampler.step=-0.02: must be at least 0"),
    ({"sampler__start_rate": 0.2, "sampler__end_rate": 0.3}, "sampler.start_rate=0.2: below sampler.end_rate=0.3"),
    (
        {"sampler__name": "decay", "sampler__step": None},
        "sampler.step=null: needs a value",
    ),
    ({"sampler__exclude": ["self", "copies"]}, "sampler.exclude=copies: must be one of self, duplicates"),
    ({"sampler__exclude": ["duplicates"]}, "sampler.exclude=['duplicates']: must contain self"),
    ({"sampler__exclude": ["self", None]}, "sampler.exclude=null: needs a value"),
    ({"sampler__exclude": None}, "sampler.exclude=null: must be a list"),
    ({"sampler__exclude": "self"}, "sampler.exclude=self: must be a list"),
    ({"data__path": "x"}, "data.path=x: data=demo ships its texts"),
    ({"data__name": "pairs"}, "data.path: data=pairs needs data.path="),
    ({"data__validation_share": 0.0}, "data.validation_share=0.0 and data.test_share="),
    (
        {"data__validation_share": 0.1, "data__test_share": 0.0},
        "data.validation_share=0.1 and data.test_share=0.0: both",
    ),
    ({"data__validation_share": 0.5, "data__test_share": 0.5}, "data.validation_share=0.5 and data.test_share=0.5"),
    ({"model__hidden_size": 130, "model__attention_heads": 4}, "model.hidden_size=130: "),
    ({"trainer__device": "tpu"}, "trainer.device=tpu: must be one of auto, cpu, cuda"),
    ({"trainer__device": "cuda:x"}, "trainer.device=cuda:x"),
    ({"trainer__device": "cpu:1"}, "trainer.device=cpu:1"),
    (
        {"loss__triplet_weight": 0, "loss__positive_weight": 0, "loss__negative_weight": 0},
        "loss: all three weights are 0",
    ),
    (
        {
            "model__freeze_encoder": True,
            "model__retrieval_dim": None,
            "loss__triplet_weight": 1.0,
            "loss__positive_weight": 0.0,
            "loss__negative_weight": 0.0,
        },
        "model.freeze_encoder=true: only the pair classifier could learn, and loss.name=triplet_ce does not train it",
    ),
    ({"model__freeze_encoder": True, "model__freeze_layers": 1}, "model.freeze_layers=1: model.freeze_encoder=true"),
    ({"trainer__average": "ema", "trainer__average_decay": 1}, "trainer.average_decay=1.0: the average would keep"),
    ({"seed": 2**32}, "seed=4294967296: must be between 0 and 4294967295"),
    ({"trainer__epochs": 10**400}, "trainer.epochs="),
    ({"trainer__batch_size": 2.5}, "trainer.batch_size=2.5: must be a whole number"),
    ({"trainer__batch_size": True}, "trainer.batch_size=True: must be a whole number"),
    ({"trainer__batch_size": "many"}, "trainer.batch_size=many: must be a whole number"),
    ({"evaluation__rerank_weight": "auto"}, "evaluation.rerank_weight=auto: must be a number or null"),
    ({"trainer__lr": "fast"}, "trainer.lr=fast: must be a number"),
    ({"trainer__lr": [1e-3]}, "trainer.lr=[0.001]: must be a number"),
    ({"trainer__lr": None}, "trainer.lr=null: needs a value"),
    ({"model__normalize": "perhaps"}, "model.normalize=perhaps: must be true or false"),
    ({"trainer": 3}, "trainer"),
    ({"seed": "???"}, "seed: "),
    ({"trainer__lr": "${nowhere}"}, "trainer.lr: Interpolation key 'nowhere' not found"),
    ({"trainer__lr": "${trainer.lr}"}, "trainer.lr: "),
    ({"trainer__lrr": 1e-3}, "trainer.lrr: "),
    ({"learning_rate": 1e-3}, "learning_rate: "),
    ({"_target_": "os.system"}, "_target_: "),
    ({"model___target_": "os.system"}, "model._target_: "),
]
EVALUATE_REFUSALS: list[Refusal] = [
    ({"split": "training"}, "split=training: must be one of train, validation, test"),
    ({"precision": "half"}, "precision=half: must be one of auto, float32, bfloat16"),
    ({"progress": "loud"}, "progress=loud"),
    ({"device": "gpu"}, "device=gpu"),
    ({"tokens_per_batch": 0}, "tokens_per_batch=0: must be at least 1"),
    ({"data__name": "pairs"}, "data.path: data=pairs needs"),
    ({"evaluation__rerank_k": 0}, "evaluation.rerank_k=0: must be at least 1"),
    ({"sampler__name": "hard"}, "sampler: "),
]


@pytest.mark.parametrize(("values", "message"), TRAIN_REFUSALS, ids=lambda part: str(part)[:60])
def test_train_refuses(values: dict[str, object], message: str) -> None:
    refused("train", values, message)


@pytest.mark.parametrize(("values", "message"), EVALUATE_REFUSALS, ids=lambda part: str(part)[:60])
def test_evaluate_refuses(values: dict[str, object], message: str) -> None:
    refused("evaluate", values, message)


def refused(command: str, values: dict[str, object], message: str) -> None:
    config = with_values(composed(command, *NEEDED.get(command, [])), **values)
    with pytest.raises(InputError) as caught:
        configure(find(command), config, [])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", [key for key, (_, _, rule) in RULES.items() if rule.choices])
def test_unknown_choice_is_refused_with_the_choices(key: str) -> None:
    command, annotation, rule = RULES[key]
    value = ["oops"] if get_origin(annotation) is list else "oops"
    refused(command, {key: value}, f"{key}=oops: must be one of {', '.join(rule.choices)}")


@pytest.mark.parametrize("key", [key for key, (_, _, rule) in RULES.items() if rule.low is not None])
def test_number_out_of_range_is_refused(key: str) -> None:
    command, _, rule = RULES[key]
    assert rule.low is not None
    refused(command, {key: rule.low - 1}, f"{key}={rule.low - 1}")
    if rule.high is not None:
        refused(command, {key: rule.high + 1}, f"{key}={rule.high + 1}")


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("key", [key for key, (_, _, rule) in RULES.items() if rule.low is not None])
def test_numbers_that_are_not_finite_are_refused(key: str, value: float) -> None:
    refused(RULES[key][0], {key: value}, key)


def test_rates_may_take_the_ends_of_their_range() -> None:
    sampler = train_config("sampler.start_rate=1", "sampler.end_rate=1", "sampler.step=0").sampler
    assert isinstance(sampler, DecayOptions)
    assert (sampler.start_rate, sampler.step, sampler.end_rate) == (1.0, 0.0, 1.0)


# --- a run's config.yaml ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["experiment=original_decay_0.8"],
        ["experiment=smoke", "sampler=static", "trainer.gradient_clip=1.5", "loss=weighted_sum"],
        ["data=pairs", "data.path='a b: {c}.csv'", "name='null'", "trainer.lr=1e-7"],
    ],
)
def test_saved_config_loads_as_it_was(tmp_path: Path, overrides: list[str]) -> None:
    config = train_config(*overrides)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_run_config(path, KINDS) == config
    assert config_hash(load_run_config(path)) == config_hash(config)


def saved(**values: object) -> str:
    config = OmegaConf.create(to_yaml(train_config("loss=triplet_ce")))
    assert isinstance(config, DictConfig)
    return OmegaConf.to_yaml(with_values(config, **values))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (saved(_target_="os.system"), "_target_: "),
        (saved(trainer___target_="os.system"), "trainer._target_: "),
        (saved(surprise=1), "surprise: "),
        (saved(loss__margin=INFINITY), "loss.margin=inf: must be at least 0"),
        (saved(loss__margin=NAN), "loss.margin=nan: must be at least 0"),
        (saved(trainer__batch_size=0), "trainer.batch_size=0: must be at least 1"),
        (saved().replace("\nseed: 0\n", "\n"), "seed: "),
        ("- a\n- b\n", "{path}: holds no mapping"),
        ("a: [1\n", "{path}: cannot be read as YAML"),
        ("a: \xff\x00", "{path}: cannot be read as YAML"),
        ("seed: !!python/object/apply:os.mkdir ['{folder}/made']\n", "{path}: cannot be read as YAML"),
    ],
)
def test_run_config_that_is_wrong_is_refused_and_runs_nothing(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content.replace("{folder}", str(tmp_path)), encoding="latin-1")
    with pytest.raises(InputError) as caught:
        load_run_config(path, KINDS)
    assert str(caught.value).startswith(message.replace("{path}", str(path)))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_of_version_0_1_compared_texts_to_the_letter(tmp_path: Path) -> None:
    path, text = tmp_path / "config.yaml", to_yaml(train_config("data.copies=keep"))
    assert text.count("  match: normalized\n") == 1
    path.write_text(text.replace("  match: normalized\n", ""), encoding="utf-8")
    assert load_run_config(path, KINDS) == train_config("data.copies=keep", "data.match=exact")


@pytest.mark.parametrize("content", ["data: 3\n", "data: [1]\n", "name: x\n", "data:\n"])
def test_a_run_config_without_data_is_refused_as_before(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_run_config(tmp_path / "config.yaml")
    assert "\n" not in str(caught.value)


def test_a_config_of_version_0_1_trained_with_the_fast_paths(tmp_path: Path) -> None:
    (path := tmp_path / "config.yaml").write_text(saved().replace("  fused: auto\n", ""), encoding="utf-8")
    assert "fused" not in path.read_text(encoding="utf-8")
    assert load_run_config(path, KINDS) == train_config("loss=triplet_ce")
    path.write_text(saved(trainer__fused="off"), encoding="utf-8")
    assert load_run_config(path).trainer.fused == "off"
    path.write_text(saved(trainer__fused=None), encoding="utf-8")
    with pytest.raises(InputError, match=r"^trainer\.fused=null: needs a value"):
        load_run_config(path)


def test_a_bare_off_in_a_yaml_file_is_refused_with_the_remedy() -> None:
    values = OmegaConf.create("trainer: {fused: off}")  # what an experiment's file would say
    with pytest.raises(InputError) as caught:
        parse_train(with_values(composed("train"), trainer__fused=values.trainer.fused))
    assert str(caught.value) == 'trainer.fused=False: must be one of auto, off; in a YAML file write "off" in quotes'


def test_run_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.yaml: not found; run= must name a folder that `negexp train` wrote"):
        load_run_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "values",
    [
        {"name": "x"},
        {"resume": "must"},
        {"checkpoint__keep": 9},
        {"tracker__ledger": False},
        {"tracker__progress": "never"},
        {"data__max_bytes": 9},
    ],
    ids=str,
)
def test_config_hash_ignores_what_cannot_change_the_result(values: dict[str, object]) -> None:
    assert config_hash(parse_train(with_values(composed("train"), **values))) == config_hash(train_config())


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 1},
        {"trainer__lr": 0.125},
        {"trainer__fused": "off"},
        {"sampler__step": 0.125},
        {"data__copies": "keep"},
    ],
    ids=str,
)
def test_config_hash_changes_with_what_decides_the_result(values: dict[str, object]) -> None:
    assert config_hash(parse_train(with_values(composed("train"), **values))) != config_hash(train_config())


def test_a_query_head_can_learn_above_a_frozen_encoder() -> None:
    frozen = ["loss=info_nce", "model.freeze_encoder=true"]
    assert train_config(*frozen, "model.query_head=residual").model.freeze_encoder
    with pytest.raises(
        InputError, match=r"loss\.name=info_nce does not train it; use .*, or set model\.query_head=residual"
    ):
        train_config(*frozen)


class EightProcesses(World):
    """Each process has one of some GPUs, on two hosts."""

    size, gpus = 8, 8

    def gather_bytes(self, data: bytes) -> list[bytes]:
        host, gpu = data.decode().split()
        return [f"{host} {gpu}".encode(), *(f"other {(rank % self.gpus)}".encode() for rank in range(1, self.size))]


def test_processes_that_would_share_a_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert choose_runtime("auto", "float32", None).device == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"GPU-{device}"))
    monkeypatch.setattr(runtime, "current", EightProcesses)
    assert choose_runtime("auto", "float32", None).device == torch.device("cuda", 1)  # whatever each process sees
    monkeypatch.setattr(EightProcesses, "gpus", 3)
    for device in ("auto", "cuda", "cuda:0"):
        message = rf"^trainer\.device={device}: 8 processes need a GPU each, and have 4; start 4"
        with pytest.raises(InputError, match=message):
            choose_runtime(device, "float32", None)
    assert choose_runtime("cpu", "float32", None).device.type == "cpu"
