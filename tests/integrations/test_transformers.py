"""The Hugging Face callback writes what a Recorder in a plain loop writes, whatever the Trainer does around updates."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from phenoscope.integrations.transformers import Record  # noqa: E402

SETTINGS = {"every": 2, "threshold": 1e-4}


def network():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    return transformers.GPT2LMHeadModel(config)


def texts(count=48):
    x = torch.randint(16, (count, 8), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": row} for row in x]


def trainer(folder, *callbacks, **settings):
    settings = {"num_train_epochs": 1, "logging_steps": 2, "save_strategy": "no", **settings}
    args = transformers.TrainingArguments(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",  # so that a plain loop can see the same batches
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **settings,
    )
    return transformers.Trainer(
        network(), args, train_dataset=texts(), eval_dataset=texts(4), callbacks=list(callbacks)
    )


def plain(path, *, accumulate=1, autocast=False, **settings):
    """The same training as a loop, recorded by a Recorder; returns the network."""
    model, data = network(), torch.stack([each["input_ids"] for each in texts()])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    model.train()
    with Recorder(model, path, optimizer=optimizer, **{**SETTINGS, **settings}):
        for window in data.split(4 * accumulate):
            for x in window.split(4):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    loss = model(input_ids=x, labels=x).loss
                (loss * 7 / 8 / accumulate).backward()  # the Trainer divides by all tokens, of which 7 are predicted
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return model


def same(run, other, at=slice(None), rtol=1e-4):
    """The Trainer scales its loss in another order, and differences of weights magnify that rounding."""
    assert list(run) == list(other) and run.steps.tolist() == other.steps.tolist()
    for name in run:
        np.testing.assert_allclose(run[name].distance.values[at], other[name].distance.values[at], rtol=rtol)


def test_the_run_is_that_of_a_recorder_in_a_plain_loop_and_training_is_untouched(tmp_path):
    t = trainer(tmp_path, Record(tmp_path / "run", **SETTINGS))
    t.train()
    plain(tmp_path / "plain")
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [2, 4, 6, 8, 10, 12] and "transformer.h.0.attn.c_attn.q" in run
    same(run, open_run(tmp_path / "plain"))
    logged = [each["loss"] for each in t.state.log_history if "loss" in each]
    np.testing.assert_allclose(run.scalars.loss, logged, rtol=1e-6)  # kept as float32
    assert "grad_norm" in run.scalars and "learning_rate" not in run.scalars
    assert run.scalars.lr.values.tolist() == pytest.approx([1e-2] * 6)
    without = trainer(tmp_path)
    without.train()
    for name, value in without.model.state_dict().items():
        assert torch.equal(t.model.state_dict()[name], value) and torch.equal(run.final()[name], value)


def test_accumulated_gradients_count_as_one_update(tmp_path):
    trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), gradient_accumulation_steps=3).train()
    plain(tmp_path / "plain", accumulate=3)
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [2, 4]
    same(run, open_run(tmp_path / "plain"))


def test_mixed_precision_records_the_weights_that_the_optimizer_updates(tmp_path):
    t = trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), bf16=True)
    t.train()
    plain(tmp_path / "plain", autocast=True)
    plain(tmp_path / "full")
    same(open_run(tmp_path / "run"), open_run(tmp_path / "plain"), rtol=1e-2)  # gradients rounded to eight bits
    with pytest.raises(AssertionError):  # full precision is another training: the comparison can fail
        same(open_run(tmp_path / "run"), open_run(tmp_path / "full"), rtol=1e-2)
    assert open_run(tmp_path / "run").final()["lm_head.weight"].dtype == torch.float32


class Stops(transformers.TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 9:
            raise RuntimeError("the machine is gone")


@pytest.mark.parametrize("callback", ["new", "the same"])
def test_a_resumed_training_goes_on_with_the_run_and_marks_the_gap(tmp_path, callback):
    """Stopped at update 9 with a checkpoint of update 5: records 6 and 8 are of updates that are made again."""
    t = trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), Stops(), save_strategy="steps", save_steps=5)
    with pytest.raises(RuntimeError, match="gone"):
        t.train()
    if callback == "new":
        t = trainer(tmp_path, Record(tmp_path / "run", **SETTINGS, overwrite=True))
    else:
        t.remove_callback(Stops)
    t.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-5"))
    whole = trainer(tmp_path, Record(tmp_path / "whole", **SETTINGS))
    whole.train()
    run, other = open_run(tmp_path / "run"), open_run(tmp_path / "whole")
    assert run.steps.tolist() == [2, 4, 6, 8, 10, 12]
    assert run.means.gap.values.tolist() == [False, False, True, False, False, False]
    for name in run:
        for measure in ("distance", "changed", "idle"):
            values, expected = run[name][measure].values, other[name][measure].values
            np.testing.assert_array_equal(values[[0, 1, 3, 4, 5]], expected[[0, 1, 3, 4, 5]], err_msg=name)
    assert 9 not in run.snapshots  # which would hold weights of the checkpoint
    assert all(torch.equal(t.model.state_dict()[name], value) for name, value in other.final().items())


def test_a_checkpoint_made_without_the_callback_is_gone_on_with(tmp_path):
    trainer(tmp_path, save_strategy="steps", save_steps=6).train()
    plain(tmp_path / "run")
    t = trainer(tmp_path, Record(tmp_path / "run", **SETTINGS))
    t.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [2, 4, 6, 8, 10, 12] and run.means.gap.values.nonzero()[0].tolist() == [3]


def test_the_count_in_the_checkpoint_is_that_of_the_optimizer(tmp_path):
    """A scaler of gradients skips updates that the trainer counts; here the checkpoint says that one was skipped."""
    trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), save_strategy="steps", save_steps=6).train()
    file = tmp_path / "out" / "checkpoint-6" / "trainer_state.json"
    text = file.read_text()
    assert '"updates": 6' in text
    file.write_text(text.replace('"updates": 6', '"updates": 5'))
    trainer(tmp_path, Record(tmp_path / "run", **SETTINGS)).train(resume_from_checkpoint=str(file.parent))
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [2, 4, 6, 8, 10] and run.means.gap.values.nonzero()[0].tolist() == [2]


def test_weights_loaded_at_the_end_are_not_taken_for_the_last(tmp_path):
    """load_best_model_at_end puts other weights into the model before training ends."""
    best = dict(load_best_model_at_end=True, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2)
    t = trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), **best)
    t.train()
    last = trainer(tmp_path)
    last.train()
    run, name = open_run(tmp_path / "run"), "transformer.h.0.mlp.c_fc.weight"
    assert t.state.best_global_step < 12 and not torch.equal(t.model.state_dict()[name], last.model.state_dict()[name])
    assert torch.equal(run.final()[name], last.model.state_dict()[name])
    assert run.scalars.eval_loss.values.tolist() == pytest.approx(
        [each["eval_loss"] for each in t.state.log_history if "eval_loss" in each]
    )


def test_a_run_is_not_replaced_unasked(tmp_path):
    trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), max_steps=2).train()
    with pytest.raises(InputError, match="overwrite=True"):
        trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), max_steps=2).train()
    with pytest.raises(InputError, match="optimizer= is not to be given"):
        Record(tmp_path / "run", optimizer=None)


def test_a_run_that_an_error_left_open_is_named_gone_on_with_or_replaced(tmp_path):
    """As in a notebook, whose process lives on."""
    t = trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), Stops())
    with pytest.raises(RuntimeError, match="gone"):
        t.train()
    with pytest.raises(InputError, match="holds a run that an error has left open: overwrite=True"):
        trainer(tmp_path, Record(tmp_path / "run", **SETTINGS)).train()
    with pytest.raises(InputError, match="being written by another recorder of this process"):
        Recorder(network(), tmp_path / "run", threshold=1e-4, resume=True)
    trainer(tmp_path, Record(tmp_path / "run", **SETTINGS, overwrite=True), max_steps=2).train()
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [2] and run.metadata["ended"] == {"step": 2, "interrupted": False}


_ENDS = """
import sys
from pathlib import Path
from tests.integrations.test_transformers import SETTINGS, Record, trainer, transformers
class Ends(transformers.TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 9:
            sys.exit(3)
folder = Path(sys.argv[1])
trainer(folder, Record(folder / "run", **SETTINGS), Ends()).train()
"""


def test_a_program_that_ends_while_it_trains_prints_nothing_of_ours_and_keeps_its_records(tmp_path):
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", _ENDS, str(tmp_path)], capture_output=True, text=True, timeout=240, cwd=root
    )
    assert ran.returncode == 3
    assert "recording" not in ran.stderr and "phenoscope" not in ran.stderr and "shutdown" not in ran.stderr
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [2, 4, 6, 8] and run.metadata["ended"] == {"step": 9, "interrupted": True}


class OutOfMemory(transformers.TrainerCallback):
    """Once, as a device says it."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 3 and state.train_batch_size == 4:
            raise RuntimeError("CUDA out of memory.")


def test_a_training_begun_anew_with_smaller_batches_is_recorded_anew(tmp_path):
    t = trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), OutOfMemory(), auto_find_batch_size=True)
    t.train()
    run = open_run(tmp_path / "run")
    assert run.steps[0] == 2 and run.steps[-1] == t.state.global_step > 12 and not run.means.gap.any()
    assert run.steps.tolist() == list(range(2, t.state.global_step + 1, 2))
