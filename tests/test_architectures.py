"""Every text encoder that the installed transformers offers: tiny random ones, padded against unpadded, or refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import compose_train
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED_LM
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES as TEXT_ENCODING
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from negexp.config import ModelConfig
from negexp.embedding import TextEncoder
from negexp.errors import InputError
from negexp.model import build_model, restore_model
from negexp.model.encoder import prepare_config, without_gradients
from negexp.model.encoder_check import check_encoder, relative_difference
from negexp.model.fused import fuse
from negexp.runtime import choose_runtime
from negexp.tokens import tokenize, train_vocabulary

VOCABULARY, LONGEST = 96, 40
TINY: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "embedding_size": 16,
    "type_vocab_size": 2,
    "pad_token_id": 1,
    "dim": 32,  # DistilBERT
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 64,
    "emb_dim": 32,  # XLM, FlauBERT
    "attention_window": 8,  # Longformer
    "block_size": 4,  # BigBird
}
OWN: dict[str, dict[str, Any]] = {
    "big_bird": {"attention_type": "original_full"},
    "clip_text_model": {"eos_token_id": 2},
    "funnel": {
        "d_model": 32,
        "n_head": 4,
        "d_head": 8,
        "d_inner": 64,
        "block_sizes": [1, 1],
        "architectures": ["FunnelModel"],
    },
    "lilt": {"hidden_size": 48},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 16},
    "modernbert": {"local_attention": 16, "global_attn_every_n_layers": 2},
    "neomme": {"head_dim": 16, "embedding_rank": 16},
    "markuplm": {
        "max_xpath_tag_unit_embeddings": 8,
        "max_xpath_subs_unit_embeddings": 8,
        "tag_pad_id": 0,
        "subs_pad_id": 0,
    },
    "perceiver": {"d_latents": 32, "d_model": 32, "num_latents": 8, "num_blocks": 1, "num_self_attends_per_block": 1},
    "reformer": {"axial_pos_embds_dim": [8, 24], "axial_pos_shape": [8, 8], "attn_layers": ["local", "lsh"]},
    "roc_bert": {"pronunciation_vocab_size": 8, "shape_vocab_size": 8},
    "squeezebert": {"embedding_size": 32},
    "xlnet": {"d_head": 8},
    "xmod": {"default_language": "en_XX"},
}
NOT_SET = {"funnel": {"num_hidden_layers"}, "xlnet": {"max_position_embeddings"}}  # keys that can only be read
MORE = {"bros", "canine", "dpr", "lilt", "markuplm", "splinter", "xlnet"}  # text encoders without a masked LM head
# Their configuration is one of several parts, text among them; there is no encoder of texts alone to build.
SEVERAL_PARTS = {"emu3", "llama4", "mllama", "modernvbert", "t5gemma", "t5gemma2", "ultravbert"}
ARCHITECTURES = sorted((MORE | MASKED_LM.keys() | TEXT_ENCODING.keys()) & MODEL_MAPPING_NAMES.keys() - SEVERAL_PARTS)
# Those that were found to be right. A later release of transformers may bring others: they are compared too.
USED = {
    "albert",
    "bert",
    "big_bird",
    "camembert",
    "clip_text_model",
    "data2vec-text",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "ernie",
    "esm",
    "esmc",
    "eurobert",
    "flaubert",
    "gte",
    "ibert",
    "jina_embeddings_v3",
    "layoutlm",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "megatron-bert",
    "modernbert",
    "molmo2_text",
    "mpnet",
    "neomme",
    "nomic_bert",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "splinter",
    "squeezebert",
    "tapas",
    "tipsv2_text_model",
    "ultrabert",
    "xlm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xlnet",
    "xmod",
}
# What the refusal says, for those that negexp refuses.
ENCODER_DECODER, PADDING = "is an encoder-decoder", "gives padded texts other hidden states"
REFUSED = {
    "bart": ENCODER_DECODER,
    "bros": "bbox",
    "canine": PADDING,  # its convolutions run over the end of a text
    "convbert": PADDING,  # so do these
    "dpr": "last_hidden_state",
    "fnet": PADDING,  # a Fourier transform over all tokens knows no mask
    "funnel": PADDING,  # it pools neighbouring tokens
    "mbart": ENCODER_DECODER,
    "mobilebert": PADDING,  # each token sees the embedding of the next
    "mra": "computes no attention",  # transformers has it on GPUs only
    "mt5": ENCODER_DECODER,
    "mvp": ENCODER_DECODER,
    "nystromformer": PADDING,  # its landmarks are means over all places
    "perceiver": "inputs",
    "reformer": "multiply to sequence length",  # in training, every text must fill its table of positions
    "t5": ENCODER_DECODER,
    "umt5": ENCODER_DECODER,
    "yoso": PADDING,  # it hashes with the mask as a value
}


@pytest.fixture
def config() -> ModelConfig:
    return replace(compose_train("experiment=smoke").model, pretrained="FOLDER", max_length=LONGEST, dropout=None)


def tiny_config(kind: str, **keys: Any) -> PreTrainedConfig:
    defaults = CONFIG_MAPPING[kind]()
    known = {key: value for key, value in TINY.items() if hasattr(defaults, key) and key not in NOT_SET.get(kind, ())}
    return CONFIG_MAPPING[kind](**{**known, **OWN.get(kind, {}), **keys})


def random_encoder(encoder_config: PreTrainedConfig) -> PreTrainedModel:
    """Return a fused encoder whose weights are large enough for every defect of its attention to show."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder: PreTrainedModel = AutoModel.from_config(encoder_config)
        with torch.no_grad():
            for parameter in encoder.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.2)
    fuse(encoder)
    return encoder


def pad_id(encoder: PreTrainedModel) -> int:
    return getattr(encoder.config, "pad_token_id", None) or 0


def padded_texts(lengths: list[int], pad_id: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.where(mask, ids, pad_id), mask.long()


def states_of(encoder: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    states: Tensor = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return states


@cache
def differences(kind: str) -> tuple[float, float]:
    """Return by how much padding changes hidden states, and by how much our path differs from transformers' own.

    Both are the largest relative difference of a text's hidden states, of four texts of 1 to 40 tokens. The second
    compares with the plain encoder, given each text alone.
    """
    encoder = random_encoder(tiny_config(kind))
    plain = AutoModel.from_config(tiny_config(kind))
    plain.load_state_dict(encoder.state_dict())
    ids, mask = padded_texts([LONGEST, 23, 7, 1], pad_id(encoder))
    padding, path = 0.0, 0.0
    with without_gradients(encoder), without_gradients(plain):
        together = states_of(encoder, ids, mask)
        for row, length in enumerate(mask.sum(1).tolist()):
            text = ids[row : row + 1, :length], mask[row : row + 1, :length]
            alone, expected = states_of(encoder, *text)[0], states_of(plain, *text)[0]
            padding = max(padding, relative_difference(together[row, :length], alone))
            path = max(path, relative_difference(alone, expected))
    return padding, path


def refusal_of(kind: str, config: ModelConfig) -> str | None:
    """Return what negexp says when it refuses an architecture."""
    encoder_config = tiny_config(kind)
    try:
        prepare_config(encoder_config, config)
        check_encoder(encoder := random_encoder(encoder_config), config, VOCABULARY, pad_id(encoder))
    except InputError as refusal:
        return str(refusal)
    return None


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_encoder_is_refused_or_gives_padded_texts_the_hidden_states_of_unpadded_ones(
    kind: str, config: ModelConfig
) -> None:
    if kind not in USED | REFUSED.keys():
        try:
            random_encoder(tiny_config(kind))
        except Exception as error:
            pytest.skip(f"{kind} is new, and not built by these keys: {error}")
    refusal = refusal_of(kind, config)
    if refusal is not None:
        assert kind not in USED, refusal
        assert REFUSED.get(kind, "") in refusal
        return
    assert kind not in REFUSED
    padding, path = differences(kind)
    assert padding < 1e-5
    assert path < 1e-5


def table() -> str:
    """Return the comparison as it stands in tests/README.md: `python tests/test_architectures.py`."""
    lines = ["| architecture | padded and alone | ours and transformers' |", "| --- | --- | --- |"]
    for kind in ARCHITECTURES:
        if kind in REFUSED:
            lines.append(f"| {kind} | refused: {REFUSED[kind]} | |")
        else:
            lines.append("| {} | {:.1e} | {:.1e} |".format(kind, *differences(kind)))
    return "\n".join(lines)


# ---------------------------------------------------------------- what a user's folder comes to


WORDS = [f"word{number} and some other{number % 7} words" for number in range(40)]
TEXTS = [" ".join(WORDS[:number]) for number in (1, 9, 2, 5, 3, 1, 7)]


def save_encoder(folder: Path, encoder_config: PreTrainedConfig) -> str:
    """Write a folder that `model.pretrained` takes: random weights, and a vocabulary of the texts."""
    tokenizer = train_vocabulary(WORDS, VOCABULARY, 512)
    encoder_config.vocab_size = len(tokenizer)
    encoder_config.pad_token_id = tokenizer.pad_token_id
    random_encoder(encoder_config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["bert", "mpnet", "roformer", "roberta", "modernbert", "gte"])
def test_embeddings_do_not_depend_on_the_size_of_batches(kind: str, config: ModelConfig, tmp_path: Path) -> None:
    config = replace(config, pretrained=save_encoder(tmp_path, tiny_config(kind)), max_length=30)
    built = build_model(config, 0, [])
    tokens = tokenize(TEXTS, built.tokenizer, config.max_length)
    texts = torch.arange(len(TEXTS)).numpy()
    found = [
        TextEncoder(built.model, tokens, choose_runtime("cpu", "float32", size)).embed(texts, "").query.retrieval
        for size in (1, 100_000)
    ]
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_bert_as_a_decoder_is_masked_as_transformers_masks_it(config: ModelConfig, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, tiny_config("bert", is_decoder=True))
    encoder = build_model(replace(config, pretrained=folder), 0, []).model.tower("query").encoder
    plain = AutoModel.from_pretrained(folder)
    ids, mask = padded_texts([20, 9], 0)
    with without_gradients(encoder), without_gradients(plain):
        for row, length in enumerate((20, 9)):
            expected = states_of(plain, ids[row : row + 1, :length], mask[row : row + 1, :length])[0]
            assert relative_difference(states_of(encoder, ids, mask)[row, :length], expected) < 1e-5
        ids[:, 8] = 7  # the last token of the shorter text
        changed = states_of(encoder, ids, mask)[1]
    torch.testing.assert_close(changed[:8], expected[:8], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        ("roberta", {"max_length": 64}, r"model\.max_length=64: roberta takes 63 tokens; use at most 63"),
        ("bert", {"max_length": 65}, r"model\.max_length=65: bert takes 64 tokens; use at most 64"),
        ("deberta", {"pooling": "pooler"}, r"model\.pooling=pooler: deberta has no pooled output; use cls or mean"),
        ("nomic_bert", {"pooling": "pooler"}, r"model\.pooling=pooler: nomic_bert has no pooled output"),
        ("t5", {}, r"model\.pretrained=.*: t5 is an encoder-decoder; give an encoder"),
        ("fnet", {}, r"model\.pretrained=.*: fnet gives padded texts other hidden states"),
        ("funnel", {}, r"model\.pretrained=.*: funnel gives padded texts other hidden states"),
        ("mobilebert", {"dropout": 0.2}, r"model\.pretrained=.*: mobilebert gives padded texts other hidden states"),
        ("tipsv2_text_model", {"dropout": 0.2}, None),
    ],
)
def test_an_encoder_that_cannot_do_as_asked_is_refused(
    kind: str, keys: dict[str, Any], message: str | None, config: ModelConfig, tmp_path: Path
) -> None:
    asked = replace(config, pretrained=save_encoder(tmp_path, tiny_config(kind)), **keys)
    if message is None:
        build_model(asked, 0, [])
        return
    with pytest.raises(InputError, match=message) as refusal:
        build_model(asked, 0, [])
    assert "\n" not in str(refusal.value)


def test_every_length_that_roberta_is_allowed_can_be_embedded(config: ModelConfig, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, tiny_config("roberta", max_position_embeddings=33))
    longest = max(length for length in range(20, 34) if is_embedded(replace(config, pretrained=folder), length))
    assert longest == 32  # the tokenizer pads with token 0, so one position is taken


def is_embedded(config: ModelConfig, length: int) -> bool:
    try:
        model = build_model(replace(config, max_length=length), 0, []).model
    except InputError:
        return False
    ids = torch.full((1, length), 7)
    return bool(model.eval()(ids, torch.ones_like(ids), "query")[0].isfinite().all())


def test_the_pooled_output_is_the_encoders_own(config: ModelConfig, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, tiny_config("albert"))
    model = build_model(replace(config, pretrained=folder, pooling="pooler", retrieval_dim=None), 0, []).model.eval()
    ids, mask = padded_texts([20, 9], 0)
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(folder)(input_ids=ids, attention_mask=mask).pooler_output
        torch.testing.assert_close(model(ids, mask, "query")[1], expected)


def test_a_run_restores_the_encoder_that_it_trained(config: ModelConfig, tmp_path: Path) -> None:
    config = replace(config, pretrained=save_encoder(tmp_path, tiny_config("mpnet")), dropout=0.25)
    built = build_model(config, 0, [])
    built.save(tmp_path / "run")
    restored = restore_model(config, tmp_path / "run", 10**9)
    restored.model.load_state_dict(built.model.state_dict())
    assert restored.encoder_config.hidden_dropout_prob == 0.25
    ids, mask = padded_texts([20, 9], 0)
    torch.testing.assert_close(built.model.eval()(ids, mask, "query"), restored.model.eval()(ids, mask, "query"))


# ---------------------------------------------------------------- dropout


@pytest.mark.parametrize("kind", ["albert", "deberta-v2", "distilbert", "eurobert", "modernbert", "mpnet", "xlm"])
def test_dropout_is_set_under_the_names_of_the_architecture(kind: str, config: ModelConfig, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, tiny_config(kind))
    for rate in (0.0, 0.5):
        built = build_model(replace(config, pretrained=folder, dropout=rate), 0, [])
        encoder = built.model.tower("query").encoder
        assert {module.p for module in encoder.modules() if isinstance(module, nn.Dropout)} <= {rate}
        saved = {key: value for key, value in built.encoder_config.to_dict().items() if "dropout" in key}
        assert rate in saved.values()
        ids, mask = padded_texts([20], 0)
        torch.manual_seed(0)
        with torch.inference_mode():
            first, second = (states_of(encoder.train(), ids, mask) for _ in range(2))
        assert torch.equal(first, second) == (rate == 0)


@pytest.mark.parametrize("kind", ["albert", "bert", "distilbert", "eurobert", "modernbert", "mpnet", "xlm"])
@pytest.mark.parametrize("dropout", [None, 0.25])
def test_attention_has_its_own_dropout(kind: str, dropout: float | None, config: ModelConfig) -> None:
    alone, both, before = tiny_config(kind), tiny_config(kind), tiny_config(kind)
    prepare_config(before, replace(config, dropout=dropout))
    prepare_config(alone, replace(config, dropout=dropout, attention_dropout=0.5))
    prepare_config(both, replace(config, dropout=0.5))
    changed = {key for key, value in alone.to_dict().items() if value != before.to_dict()[key]}
    assert changed in ({"attention_dropout"}, {"attention_probs_dropout_prob"})
    assert all(alone.to_dict()[key] == both.to_dict()[key] == 0.5 for key in changed)


def test_without_dropout_of_attention_only_its_probabilities_are_kept(config: ModelConfig) -> None:
    """The random BERT: hidden states are dropped, attention is not."""
    random = replace(config, pretrained=None, dropout=0.5, attention_dropout=0.0)
    built = build_model(random, 0, ["one two", "two three"])
    encoder = built.model.tower("query").encoder
    rates = {name: module.p for name, module in encoder.named_modules() if isinstance(module, nn.Dropout)}
    assert {name for name, rate in rates.items() if rate == 0} == {
        name for name in rates if name.endswith("attention.self.dropout")
    }
    assert set(rates.values()) == {0.0, 0.5}


@pytest.mark.parametrize(("dropout", "attention_dropout"), [(0.2, None), (None, 0.2), (0.0, 0.2)])
def test_dropout_that_an_encoder_does_not_have_is_refused(
    dropout: float | None, attention_dropout: float | None, config: ModelConfig
) -> None:
    encoder_config = PreTrainedConfig(is_encoder_decoder=False)
    key = "dropout" if dropout else "attention_dropout"
    message = rf"model\.{key}=0\.2: .*has no such dropout to set; use model\.{key}=null"
    with pytest.raises(InputError, match=message):
        prepare_config(encoder_config, replace(config, dropout=dropout, attention_dropout=attention_dropout))
    prepare_config(encoder_config, replace(config, dropout=0.0, attention_dropout=0.0))  # there is none, as asked


def test_dropout_that_cannot_be_set_is_refused(config: ModelConfig) -> None:
    encoder = random_encoder(tiny_config("bert"))
    dropout = encoder.get_submodule("encoder.layer.0.output.dropout")
    assert isinstance(dropout, nn.Dropout)
    dropout.p = 0.4
    message = r"model\.dropout=0\.1: encoder\.layer\.0\.output\.dropout of bert keeps 0\.4; use model\.dropout=null"
    with pytest.raises(InputError, match=message):
        check_encoder(encoder, replace(config, dropout=0.1), VOCABULARY, 0)


if __name__ == "__main__":
    print(table())
