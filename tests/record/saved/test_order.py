"""Checkpoints in the order of training."""

import os
from pathlib import Path

import pytest

from phenoscope.core.errors import InputError
from phenoscope.record.saved.find import Checkpoint
from phenoscope.record.saved.order import in_order, listed, step_in_name


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-500", 500),
        ("step_100.pt", 100),
        ("epoch=3-step=264.ckpt", 264),
        ("Step 12, epoch 900.pth", 12),
        ("global_step1000", 1000),
        ("epoch=7-val_loss=0.25.ckpt", 7),
        ("model_iter_80_v2.pt", 80),
        ("vgg16-30.safetensors", 30),
        ("000007.pt", 7),
        ("last.ckpt", None),
        ("model", None),
        ("9" * 40 + ".pt", None),
    ],
)
def test_the_step_is_read_from_the_name(name: str, step: int | None) -> None:
    assert step_in_name(name) == step


def items(*names: str, within: int | None = None) -> list[tuple[Checkpoint, int | None, str]]:
    return [(Checkpoint(name, Path(name)), within, name) for name in names]


def test_steps_sort_by_number_and_not_by_letter() -> None:
    ordered = in_order(items("step_1000.pt", "step_20.pt", "step_3.pt"), "step")
    assert [(step, name) for step, _, name in ordered] == [(3, "step_3.pt"), (20, "step_20.pt"), (1000, "step_1000.pt")]


def test_a_number_in_the_name_goes_before_the_one_inside() -> None:
    both = items("step_5.pt", within=900) + items("last.pt", within=7)
    assert [step for step, _, _ in in_order(both, "step")] == [5, 7]


def test_missing_and_double_steps_are_named_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"best\.pt and 1 others name no step.*--order"):
        in_order(items("step_1.pt", "best.pt", "last.pt"), "step")
    with pytest.raises(InputError, match=r"a_step_7\.pt, b_step_7\.pt are all of step 7.*--order"):
        in_order(items("a_step_7.pt", "b_step_7.pt", "step_8.pt"), "step")
    assert in_order([], "step") == []


def test_order_by_name_is_natural_and_keeps_steps_only_if_they_increase() -> None:
    assert [(s, n) for s, _, n in in_order(items("b10.pt", "b9.pt"), "name")] == [(9, "b9.pt"), (10, "b10.pt")]
    assert [(s, n) for s, _, n in in_order(items("b1.pt", "a2.pt"), "name")] == [(0, "a2.pt"), (1, "b1.pt")]
    assert [(s, n) for s, _, n in in_order(items("y.pt", "x.pt"), "name")] == [(0, "x.pt"), (1, "y.pt")]


def test_order_by_time_goes_by_the_last_change(tmp_path: Path) -> None:
    found = []
    for age, name in [(300, "c.pt"), (100, "a.pt"), (200, "b.pt")]:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
        found.append((Checkpoint(name, tmp_path / name), None, name))
    assert [(s, n) for s, _, n in in_order(found, "time")] == [(0, "c.pt"), (1, "b.pt"), (2, "a.pt")]


def test_a_list_picks_and_orders_and_its_mistakes_are_named(tmp_path: Path) -> None:
    found = [Checkpoint(name, tmp_path / name) for name in ("a.pt", "b.pt", "c.pt")]
    file = tmp_path / "order.txt"
    file.write_text("some/where/c.pt\n\n a.pt \n")
    assert [each.name for each in listed(found, file)] == ["c.pt", "a.pt"]
    file.write_text("d.pt\n")
    with pytest.raises(InputError, match=r"lists 'd\.pt', which is no checkpoint"):
        listed(found, file)
    file.write_text("a.pt\na.pt\n")
    with pytest.raises(InputError, match="twice"):
        listed(found, file)
    with pytest.raises(InputError, match="order must be 'step', 'name', 'time' or a text file, not 'nmae'"):
        listed(found, Path("nmae"))
