"""Dropout on a CPU against its definition: how often what is dropped, values, gradients, draws."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import compose_train
from torch import nn

from negexp.model import build_model
from negexp.model.fused.dropout import Dropout, drop_signs, kept_scale, replace_dropout


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.1, 0.5, 0.9, 0.99])
def test_values_are_dropped_independently_at_the_configured_rate(p: float) -> None:
    torch.manual_seed(0)
    dropped = (drop_signs(torch.Size([1000, 1000]), p) < 0).double()
    assert float(dropped.mean()) == pytest.approx(p, abs=2**-15 + 5 * (p * (1 - p) / 1e6) ** 0.5)
    for lag in (1, 2, 3, 4, 1000):  # four values share one draw
        flat = dropped.flatten()
        both = float((flat[:-lag] * flat[lag:]).mean())
        assert both == pytest.approx(p * p, abs=2**-14 + 6 * (p * p * (1 - p * p) / 1e6) ** 0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_is_zero_or_scaled_and_so_is_its_gradient(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.linspace(-3, -1, 999 * 3, dtype=dtype).reshape(999, 3).mT.requires_grad_()  # not contiguous
    dropped = Dropout(p)(values)
    gradient = torch.linspace(1, 2, 999 * 3, dtype=dtype).reshape(3, 999)
    dropped.backward(gradient)
    kept = dropped.detach() != 0
    assert 0 < int((~kept).sum()) < values.numel()
    torch.testing.assert_close(dropped.detach(), values.detach() * kept * kept_scale(p))
    assert values.grad is not None
    torch.testing.assert_close(values.grad, gradient * kept * kept_scale(p))


def test_dropout_preserves_the_mean() -> None:
    torch.manual_seed(0)
    for p in (0.1, 0.5, 0.9):
        mean = float(Dropout(p)(torch.ones(1000, 1000)).mean())
        assert mean == pytest.approx(1, abs=5 * (p / (1 - p) / 1e6) ** 0.5)


def test_draws_come_from_torchs_generator() -> None:
    values, layer = torch.ones(50, 50), Dropout(0.5)
    torch.manual_seed(7)
    first, second = layer(values), layer(values)
    torch.manual_seed(7)
    assert torch.equal(layer(values), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero() -> None:
    values = torch.randn(5, 5)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)


def test_other_devices_use_torchs_dropout() -> None:
    assert Dropout(0.5)(torch.ones(3, device="meta")).device.type == "meta"


def test_every_dropout_of_an_encoder_is_replaced() -> None:
    config = replace(compose_train("experiment=smoke").model, dropout=0.3)
    encoder = build_model(config, 0, ["a text of some words"] * 9).model.get_submodule("towers.0.encoder")
    layers = [module for module in encoder.modules() if isinstance(module, nn.Dropout)]
    assert layers
    assert {(type(layer), layer.p) for layer in layers} == {(Dropout, 0.3)}
    nested = nn.Sequential(nn.Dropout(0.2), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.4).eval()))
    replace_dropout(nested)
    found = [(type(module), module.p, module.training) for module in nested.modules() if isinstance(module, nn.Dropout)]
    assert found == [(Dropout, 0.2, True), (Dropout, 0.4, False)]


def test_the_output_of_dropout_can_be_changed_in_place() -> None:
    values = torch.ones(4, requires_grad=True)
    dropped = Dropout(0.5)(values)
    dropped += 1
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, dropped.detach() - 1)
