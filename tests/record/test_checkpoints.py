"""Measures from saved checkpoints: the same numbers as from the weights themselves."""

import itertools
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from phenoscope.core.errors import InputError
from phenoscope.record import evolution
from phenoscope.record.checkpoints import evolve
from phenoscope.record.run import Run

State = dict[str, Tensor]
TAU = 0.01


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Flatten(), nn.Linear(6, 5)
    )


def states(count: int, model: nn.Module | None = None) -> list[State]:
    """A network that drifts: some entries by more than tau, some by less, those at index 0 not at all."""
    generator = torch.Generator().manual_seed(0)
    history = [{k: v.clone() for k, v in (model or network()).state_dict().items()}]
    for _ in range(count - 1):
        state = {}
        for name, before in history[-1].items():
            step = torch.randn(before.shape, generator=generator) * 0.008
            step[0] = 0
            state[name] = before + step.to(before.dtype)
        history.append(state)
    return history


def check(run: Run, history: list[State], steps: list[int], threshold: float = TAU) -> None:
    """Every value of a run equals `evolution` of the states.

    Counts are exact; distances are kept as float32, so they agree to 1e-6 of their size.
    """
    assert len(run) > 0
    for name, layer in run.layers.items():
        data = run[name]
        assert data.step.values.tolist() == steps
        for row, (before, after) in enumerate(itertools.pairwise(history)):
            weights = (layer.blocks(state[layer.parameter])[0] for state in (before, after))
            if layer.groups > 1:
                weights = (state[layer.parameter] for state in (before, after))
            at = {"filters": 0, "channels": 1} if layer.groups == 1 else {"filters": 1, "channels": 0}
            expected = evolution(*weights, threshold, **at, groups=layer.groups)  # type: ignore[misc]
            for measure, rtol in [("distance", 1e-6), ("distance_per_weight", 1e-6), ("changed", 0), ("idle", 0)]:
                value = data[measure].values[row]
                atol = 0 if rtol else 1e-12  # shares are divided once more
                np.testing.assert_allclose(value, getattr(expected, measure).numpy(), rtol=rtol, atol=atol)
    assert not run.means["gap"].values.any()


def save_all(directory: Path, history: list[State], name: str = "step_{}.pt", every: int = 10) -> list[int]:
    """Save states as `torch.save` files; the steps of the records that follow."""
    directory.mkdir(exist_ok=True)
    for i, state in enumerate(history):
        torch.save(state, directory / name.format(i * every))
    return [i * every for i in range(1, len(history))]


def test_without_a_model_axes_are_assumed_and_the_run_says_so(tmp_path: Path) -> None:
    history = states(4)
    steps = save_all(tmp_path / "saved", history)
    run = evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU)
    check(run, history, steps)
    assert list(run.layers) == ["0", "2", "4"]
    assert run.layers["2"].shape == (4, 3, 2, 2)
    assert len(run.layers["2"]) == 4  # dimension 0, though it is the transposed convolution's input
    assert run.metadata["axes"] == "assumed"
    assert run.metadata["model"] is None
    assert run.metadata["every"] == 10
    assert run.thresholds == {"0": TAU, "2": TAU, "4": TAU}


def test_a_model_gives_the_axes(tmp_path: Path) -> None:
    history = states(3)
    steps = save_all(tmp_path / "saved", history)
    run = evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU, model=network())
    check(run, history, steps)
    assert len(run.layers["2"]) == 6
    assert run.metadata["model"] == "Sequential"
    assert "axes" not in run.metadata


@pytest.mark.parametrize("before", ["module.", "_orig_mod.", "model.", "net.model.", "module._orig_mod.model."])
def test_what_wrappers_put_before_names_is_taken_off(before: str, tmp_path: Path) -> None:
    history = states(3)
    wrapped = [{before + k: v for k, v in state.items()} | {"metric.weight": torch.ones(2, 2)} for state in history]
    steps = save_all(tmp_path / "saved", wrapped)
    run = evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU, model=network())
    check(run, history, steps)
    network().load_state_dict(run.final())  # the whole final state, in the model's own names


def test_module_is_taken_off_without_a_model_too(tmp_path: Path) -> None:
    save_all(tmp_path / "saved", [{f"module._orig_mod.{k}": v for k, v in state.items()} for state in states(2)])
    assert list(evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU).layers) == ["0", "2", "4"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_types_are_measured_as_they_are(dtype: torch.dtype, tmp_path: Path) -> None:
    history = states(3, network().to(dtype))
    steps = save_all(tmp_path / "saved", history)
    check(evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU), history, steps)


def test_formats_may_be_mixed_and_shards_and_folders_count_as_one(tmp_path: Path) -> None:
    history = states(6)
    torch.save(history[0], tmp_path / "step_1.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": history[1]}, tmp_path / "step_2.ckpt")
    save_file(history[2], tmp_path / "step_3.safetensors")
    names = list(history[3])
    for i, part in enumerate((names[:2], names[2:]), 1):
        save_file({k: history[3][k] for k in part}, tmp_path / f"step_4-{i:05d}-of-00002.safetensors")
    for i, step in [(4, 5), (5, 6)]:
        (tmp_path / f"checkpoint-{step}").mkdir()
        save_file(history[i], tmp_path / f"checkpoint-{step}" / "model.safetensors")
    run = evolve(tmp_path, tmp_path / "run", threshold=TAU)
    check(run, history, [2, 3, 4, 5, 6])


def test_lightning_checkpoints_of_a_real_fit(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own advice on loggers and workers
        import lightning
        from lightning.pytorch.callbacks import ModelCheckpoint

        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

            def training_step(self, batch: Tensor, index: int) -> Tensor:
                return self.model(batch).square().mean()

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.Adam(self.parameters(), lr=0.02)

        data = torch.utils.data.DataLoader(torch.randn(24, 4, generator=torch.Generator().manual_seed(0)), batch_size=4)
        keep = ModelCheckpoint(tmp_path / "saved", save_top_k=-1, every_n_train_steps=2)
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            callbacks=[keep],
            enable_progress_bar=False,
            enable_model_summary=False,
            barebones=False,
        )
        module = Module()
        trainer.fit(module, data)
    files = sorted((tmp_path / "saved").iterdir(), key=lambda file: int(file.stem.split("step=")[1]))
    assert [file.name for file in files][:1] == ["epoch=0-step=2.ckpt"]
    read = [torch.load(file, weights_only=True)["state_dict"] for file in files]
    history = [{name.removeprefix("model."): tensor for name, tensor in state.items()} for state in read]
    run = evolve(tmp_path / "saved", tmp_path / "run", threshold=0.02, model=module.model)
    check(run, history, [4, 6, 8, 10, 12], threshold=0.02)


def test_hugging_face_folders_with_shards_and_tied_weights(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what transformers says while importing
        from transformers import GPT2Config, GPT2LMHeadModel
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        size = {"vocab_size": 50, "n_positions": 8, "n_embd": 16, "n_layer": 2, "n_head": 4}
        model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
        history = []
        for step in (5, 10, 15):
            model.save_pretrained(tmp_path / "saved" / f"checkpoint-{step}", max_shard_size="10KB")
            history.append({k: v.clone() for k, v in model.state_dict().items()})
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter[1:] += 0.02
    folder = tmp_path / "saved" / "checkpoint-5"
    assert (folder / "model.safetensors.index.json").is_file()  # it really is in shards,
    held = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert "lm_head.weight" not in held  # and the tied weight stands under its other name
    run = evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU, model=model)
    for name in ("transformer.h.0.attn.c_attn.q", "transformer.h.1.mlp.c_fc", "lm_head"):
        assert name in run
    attention = run["transformer.h.0.attn.c_attn.q"]
    assert attention.sizes["filter"] == 4  # a filter a head
    np.testing.assert_allclose(attention["idle"], 1 / 16)  # the first of 16 input channels stood still, in every head
    head = evolution(history[0]["lm_head.weight"], history[1]["lm_head.weight"], TAU)
    np.testing.assert_allclose(run["lm_head"]["distance"][0], head.distance, rtol=1e-6)  # kept as float32
    model.load_state_dict(run.final())


def bad_wrong_shape(state: State) -> Any:
    return state | {"2.weight": torch.ones(4, 3, 3, 3)}


def bad_missing(state: State) -> Any:
    return {k: v for k, v in state.items() if k != "4.weight"}


def bad_new(state: State) -> Any:
    return state | {"9.weight": torch.ones(2, 2)}


def bad_type(state: State) -> Any:
    return {k: v.half() for k, v in state.items()}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (bad_wrong_shape, r"step_10\.pt holds '2\.weight' in shape \(4, 3, 3, 3\); the first checkpoint has \(4, 3, 2"),
        (bad_missing, r"step_10\.pt lacks the weight '4\.weight'"),
        (bad_new, r"step_10\.pt holds '9\.weight', which the first checkpoint lacks"),
        (bad_type, r"step_10\.pt holds '0\.weight' as torch\.float16 and the first checkpoint as torch\.float32"),
        (lambda state: {"epoch": 3}, r"step_10\.pt holds no weights"),
        (None, r"step_10\.pt is damaged or cut short"),
    ],
)
def test_a_bad_checkpoint_is_named_and_can_be_skipped(
    spoil: Callable[[State], Any] | None, message: str, tmp_path: Path
) -> None:
    history = states(4)
    save_all(tmp_path / "saved", history)
    file = tmp_path / "saved" / "step_10.pt"
    if spoil is None:
        file.write_bytes(file.read_bytes()[:-100])
    else:
        torch.save(spoil(history[1]), file)
    with pytest.raises(InputError, match=message + r".*--skip-bad"):
        evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU)
    assert not (tmp_path / "run").exists()  # found before anything was written
    with pytest.warns(UserWarning, match=message + ".*going on without it") as warned:
        run = evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU, skip_bad=True)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    check(run, [history[0], history[2], history[3]], [20, 30])  # the record at 20 spans the gap
    assert run.metadata["every"] is None
    assert run.metadata["checkpoints"] == ["step_0.pt", "step_20.pt", "step_30.pt"]


def test_a_model_that_does_not_fit_is_told_apart(tmp_path: Path) -> None:
    save_all(tmp_path / "saved", states(2))
    with pytest.raises(InputError, match=r"step_0\.pt lacks the weight '5\.weight' of the model"):
        evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU, model=network().append(nn.Linear(5, 5)))
    other = nn.Sequential(nn.Conv2d(1, 4, 3))
    with pytest.raises(InputError, match=r"'0\.weight' in shape \(4, 3, 3, 3\); the model has \(4, 1, 3, 3\)"):
        evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU, model=other)
    with pytest.raises(InputError, match="no shape yet"):
        evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU, model=nn.Sequential(nn.LazyConv2d(4, 3)))
    with pytest.raises(InputError, match="ReLU has no layers with filters"):
        evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU, model=nn.ReLU())


def test_nan_weights_are_reported_and_the_rest_is_still_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = states(4)
    history[2]["0.weight"] = history[2]["0.weight"].clone()
    history[2]["0.weight"][1, 0, 0, 0] = float("nan")
    save_all(tmp_path / "saved", history)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run = evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU)
    assert any("NaN" in str(each.message) for each in warned) or "NaN" in capsys.readouterr().err
    assert np.isnan(run["0"]["distance"].values).tolist() == [
        [False] * 4,
        [False, True, False, False],
        [False, True, False, False],
    ]
    assert np.isfinite(run["4"]["distance"].values).all()


def test_too_few_checkpoints_and_bad_thresholds_are_refused(tmp_path: Path) -> None:
    save_all(tmp_path / "saved", states(1))
    with pytest.raises(InputError, match="holds 1 checkpoint that can be used"):
        evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU)
    with pytest.raises(InputError, match="threshold"):
        evolve(tmp_path / "saved", tmp_path / "run", threshold=-1)
    (tmp_path / "saved" / "step_0.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="is empty"), pytest.raises(InputError, match="holds 0 checkpoints"):
        evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU, skip_bad=True)


def test_a_run_is_replaced_only_when_asked_and_only_by_a_good_one(tmp_path: Path) -> None:
    history = states(2)
    steps = save_all(tmp_path / "saved", history)
    evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU)
    with pytest.raises(InputError, match=r"already holds a run.*--overwrite"):
        evolve(tmp_path / "saved", tmp_path / "run", threshold=1.0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no checkpoints"):
        evolve(tmp_path / "empty", tmp_path / "run", threshold=1.0, overwrite=True)
    assert Run(tmp_path / "run").thresholds["0"] == TAU
    run = evolve(tmp_path / "saved", tmp_path / "run", threshold=1.0, overwrite=True)
    check(run, history, steps, threshold=1.0)


def test_order_by_a_list_decides_what_is_compared_with_what(tmp_path: Path) -> None:
    history = states(3)
    for name, state in zip(("c", "a", "b"), history, strict=True):
        torch.save(state, tmp_path / f"{name}.pt")
    (tmp_path / "broken.pt").write_bytes(b"")  # not listed, so never opened
    (tmp_path / "order.txt").write_text("c.pt\na.pt\nb.pt\n")
    check(evolve(tmp_path, tmp_path / "run", threshold=TAU, order=tmp_path / "order.txt"), history, [1, 2])
    (tmp_path / "broken.pt").unlink()
    by_name = [history[1], history[2], history[0]]
    check(evolve(tmp_path, tmp_path / "run2", threshold=TAU, order="name"), by_name, [1, 2])
    with pytest.raises(InputError, match="--order"):
        evolve(tmp_path, tmp_path / "run3", threshold=TAU)


def test_snapshots_final_state_and_progress(tmp_path: Path) -> None:
    history = states(7)
    save_all(tmp_path / "saved", history, every=5)
    calls: list[tuple[int, int, str]] = []
    run = evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU, progress=lambda *each: calls.append(each))
    assert calls == [(i + 1, 7, f"step_{5 * i}.pt") for i in range(7)]
    assert run.snapshots == [0, 5, 10, 20, 30]
    for step in run.snapshots:
        kept = run.snapshot(step)
        assert set(kept) == {"0.weight", "0.bias"}
        assert all(torch.equal(kept[name], history[step // 5][name]) for name in kept)
    final = run.final()
    assert set(final) == set(history[-1])
    assert all(torch.equal(final[name], history[-1][name]) for name in final)


def test_a_run_that_cannot_be_written_ends_in_an_error_and_not_in_a_half_run(tmp_path: Path) -> None:
    save_all(tmp_path / "saved", states(9))
    calls = []

    def take_the_folder_away(done: int, total: int, name: str) -> None:
        calls.append(done)
        if done == 2:
            shutil.rmtree(tmp_path / "run")
            (tmp_path / "run").touch()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the writer's own report
        with pytest.raises(OSError, match="run could not be written"):
            evolve(tmp_path / "saved", tmp_path / "run", threshold=TAU, progress=take_the_folder_away)
    assert calls == [1, 2, 3]  # it stops there, rather than measure for nothing


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_memory_holds_about_two_checkpoints_and_never_all(kind: str, tmp_path: Path) -> None:
    size, count = 16 * 2**20, 12
    tensor = torch.zeros(64, size // 4 // 64)
    for i in range(count):
        tensor += 1
        state = {"0.weight": torch.zeros(2, 2), "1.weight": tensor}
        torch.save(state, tmp_path / f"{i}.pt") if kind == "pt" else save_file(state, tmp_path / f"{i}.safetensors")
    del tensor, state
    evolve(tmp_path, tmp_path / "warm", threshold=TAU, order="name")  # compiled code, zarr and torch's own buffers
    process, most = psutil.Process(), 0

    def watch(done: int, total: int, name: str) -> None:
        nonlocal most
        most = max(most, process.memory_info().rss)

    before = process.memory_info().rss
    run = evolve(tmp_path, tmp_path / "run", threshold=TAU, progress=watch)
    np.testing.assert_allclose(run["1"]["distance_per_weight"], 1.0)
    # two copies, one file mapped, and as much again for noise; all together would be twelve
    assert most - before < 4 * size
