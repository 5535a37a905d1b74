"""Numbers that change while training: each schedule against its formula, and numbers that stand for a schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_config import train_config
from test_sampling import build_sampler, config, new_round, random_problem

from negexp.components import Options, build, parse, scheduled
from negexp.components.parse import parse_component
from negexp.config import ScheduleConfig, load_run_config, to_yaml
from negexp.errors import InputError
from negexp.sampling import Schedule, ScheduledNumber

VALUES = st.floats(-5, 5)
EPOCHS = st.floats(0, 50)


def schedule(**values: object) -> Schedule:
    built: Schedule = build("schedule", parse_component("schedule", values, "key"))
    return built


@given(start=VALUES, step=st.floats(0, 1), end=VALUES, progress=EPOCHS)
def test_linear_moves_to_its_end(start: float, step: float, end: float, progress: float) -> None:
    line = schedule(name="linear", start=start, step=step, end=end)
    found = line.value(progress, [])
    if start >= end:
        assert found == max(end, start - step * progress)
    assert abs(found - start) == pytest.approx(min(abs(end - start), step * progress))
    assert min(start, end) <= found <= max(start, end)


def test_constant_stays() -> None:
    assert {schedule(name="constant", constant=0.3).value(progress, []) for progress in (0, 1.5, 99)} == {0.3}


@given(start=VALUES, end=VALUES, epochs=EPOCHS, progress=EPOCHS)
def test_cosine_goes_from_start_to_end(start: float, end: float, epochs: float, progress: float) -> None:
    found = schedule(name="cosine", start=start, end=end, epochs=epochs).value(progress, [])
    share = 1.0 if progress >= epochs else progress / epochs
    # 1 - cos(pi x) = 2 sin(pi x / 2) ** 2
    assert found == pytest.approx(start + (end - start) * math.sin(math.pi * share / 2) ** 2, abs=1e-9)


def test_cosine_by_hand() -> None:
    rise = schedule(name="cosine", start=0.0, end=1.0, epochs=4)
    assert [round(rise.value(progress, []), 6) for progress in (0, 1, 2, 4, 9)] == [0, 0.146447, 0.5, 1, 1]


@given(start=VALUES, end=VALUES, half_life=st.floats(0.1, 9), progress=EPOCHS)
def test_exponential_halves_the_distance_to_its_end(
    start: float, end: float, half_life: float, progress: float
) -> None:
    curve = schedule(name="exponential", start=start, half_life=half_life, end=end)
    assert curve.value(0, []) == pytest.approx(start)
    here, later = (curve.value(at, []) - end for at in (progress, progress + half_life))
    assert later == pytest.approx(here / 2, abs=1e-9)


@given(
    values=st.lists(VALUES, min_size=1, max_size=5),
    epochs=st.lists(EPOCHS, unique=True, min_size=4, max_size=4).map(sorted),
    progress=EPOCHS,
)
def test_steps_change_at_their_epochs(values: list[float], epochs: list[float], progress: float) -> None:
    epochs = epochs[: len(values) - 1]
    found = schedule(name="steps", values=values, epochs=epochs).value(progress, [])
    assert found == values[sum(epoch <= progress for epoch in epochs)]


@given(
    start=st.floats(0, 1),
    end=st.floats(0, 1),
    step=st.floats(0, 0.5),
    patience=st.integers(1, 3),
    validation=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=12),
)
def test_adaptive_moves_after_epochs_without_a_new_best(
    start: float, end: float, step: float, patience: int, validation: list[float]
) -> None:
    adaptive = schedule(name="adaptive", start=start, step=step, end=end, patience=patience)
    # the oracle counts backwards from each epoch: the epochs since the last new best are a multiple of patience
    new_best = [all(value > earlier for earlier in validation[:at]) for at, value in enumerate(validation)]
    since = [at - max(best for best in range(at + 1) if new_best[best]) for at in range(len(validation))]
    count = sum(wait > 0 and wait % patience == 0 for wait in since)
    moved = min(count * step, abs(end - start))
    assert adaptive.value(99, validation) == pytest.approx(start + math.copysign(moved, end - start))


def test_a_longer_history_of_the_same_epochs_moves_further() -> None:
    adaptive = schedule(name="adaptive", start=0.2, step=0.3, end=1.0, patience=2)
    history = [0.5, 0.4, 0.5, 0.6, 0.6, 0.6, 0.1, 0.1]
    assert [adaptive.value(0, history[:epoch]) for epoch in range(9)] == pytest.approx(
        [0.2, 0.2, 0.2, 0.5, 0.5, 0.5, 0.8, 0.8, 1.0]
    )
    assert adaptive.value(0, [math.nan, math.nan]) == 0.5  # a value that is not a number is no new best


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "steps", "values": [1, 2], "epochs": [1, 2]}, r"key\.values=\[1\.0, 2\.0\]: 2 numbers for 2 epochs"),
        ({"name": "steps", "values": [1, 2, 3], "epochs": [2, 2]}, r"key\.epochs=\[2\.0, 2\.0\]: must ascend"),
        ({"name": "adaptive", "start": 1, "step": 1, "end": 0, "patience": 0}, r"key\.patience=0: must be at least 1"),
        (
            {"name": "exponential", "start": 1, "half_life": 0, "end": 0},
            r"key\.half_life=0\.0: must be at least 0\.001",
        ),
        ({"name": "cosine", "start": 1, "end": 0, "epochs": -1}, r"key\.epochs=-1\.0: must be at least 0"),
    ],
)
def test_a_schedule_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        schedule(**values)


# ---- a number that may be a schedule ---------------------------------------------------------------------------------


@dataclass
class Part(Options):
    share: ScheduleConfig = scheduled("a share", low=0, high=1)
    bound: ScheduleConfig | None = scheduled("a bound")


def part(share: object, bound: object = None) -> Part:
    return parse(Part, {"share": share, "bound": bound}, "part")


@pytest.mark.parametrize("number", [0, 1, 0.25, "1e-3"])
def test_a_number_stands_for_the_constant_schedule(number: object) -> None:
    options = part(number, bound=-7)
    assert options == part({"name": "constant", "constant": number}, {"name": "constant", "constant": -7})
    assert ScheduledNumber(options, "share").value(3.5, [0.1]) == float(str(number))
    assert ScheduledNumber(options, "bound").value(0) == -7
    assert part(number).bound is None


def test_a_schedules_value_is_clipped_to_the_range() -> None:
    share = ScheduledNumber(part({"name": "steps", "values": [-1, 0.5, 2], "epochs": [1, 2]}), "share")
    assert [share.value(progress) for progress in range(3)] == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "part.share=1.5: must be between 0 and 1"),
        ({"name": "constant", "constant": -1}, "part.share=-1: must be between 0 and 1"),
        ("many", "part.share=many: must be a number"),
        (None, "part.share=null: must be a number; schedule@part.share=NAME chooses one of adaptive, constant, cosine"),
        (True, "part.share=True: must be a number"),
        ("cosine", "part.share=cosine: must be a number; schedule@part.share=NAME chooses one of"),
        ([1], "part.share=[1]: must be a number"),
        ({"constant": 1}, "part.share: needs a name; choose from adaptive, constant"),
        ({"name": "wave"}, "part.share.name=wave: no such schedule; choose from adaptive"),
    ],
    ids=str,
)
def test_what_is_no_number_and_no_schedule_is_refused(value: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        part(value)
    assert str(caught.value).startswith(message)


def rate_of(*overrides: str) -> Any:
    return train_config("sampler=scheduled", *overrides).sampler.random_rate  # type: ignore[attr-defined]


@pytest.mark.runs
def test_the_command_line_takes_a_number_or_a_schedule() -> None:
    assert rate_of().name == "linear"
    assert rate_of("sampler.random_rate=0.3").constant == 0.3
    cosine = rate_of("schedule@sampler.random_rate=cosine", "trainer.epochs=5", "sampler.random_rate.start=1")
    assert (cosine.name, cosine.start, cosine.end, cosine.epochs) == ("cosine", 1.0, 0.0, 5.0)
    # a number replaces a schedule as a whole
    assert rate_of("schedule@sampler.random_rate=cosine", "sampler.random_rate=0.2").constant == 0.2


def test_a_saved_configuration_gives_the_same_schedule(tmp_path: Any) -> None:
    saved = tmp_path / "config.yaml"
    now = train_config("sampler=scheduled", "sampler.random_rate=0.3")
    saved.write_text(to_yaml(now), encoding="utf-8")
    assert load_run_config(saved, kinds=None) == now


def test_a_scheduled_sampler_follows_its_schedule_within_an_epoch() -> None:
    line = {"name": "linear", "start": 1.0, "step": 1.0, "end": 0.0}
    sampler = build_sampler(config("scheduled", random_rate=line))
    assert [sampler.random_rate(progress) for progress in (0, 0.25, 1, 2)] == [1.0, 0.75, 0.0, 0.0]
    problem = random_problem(2000, copies=False)
    negatives = sampler.sample(new_round(problem, backend="exact").at(0.75))
    assert negatives.mined.mean() == pytest.approx(0.75, abs=0.05)
