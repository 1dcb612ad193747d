"""The recorder in training loops of many kinds: what it writes is what happened, and training does not notice."""

import copy
import itertools
import shutil
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError
from phenoscope.record import evolution, store
from phenoscope.record.layers import find_layers


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3, groups=1), nn.Flatten(), nn.Linear(80, 3)
    )


def train(model, optimizer, steps, after=lambda step: None, seed=1, batch=4, accumulate=1):
    g = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        for _ in range(accumulate):
            x = torch.randn(batch, 3, 8, 8, generator=g)
            loss = model(x).square().mean()
            loss.backward()
        optimizer.step()
        after(step)
    return loss


def expected(states, run, name):
    """What the definition says between consecutive recorded states."""
    layer = run.layers[name]
    out = []
    for before, after in itertools.pairwise(states):
        e = evolution(
            before[layer.parameter],
            after[layer.parameter],
            run.thresholds[name],
            filters=layer.filters,
            channels=layer.channels,
            groups=layer.groups,
        )
        out.append([e.distance.numpy(), e.distance_per_weight.numpy(), e.changed.numpy(), e.idle.numpy()])
    return np.moveaxis(np.array(out), 1, 0)


def keep(model):
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_holds_the_measures_between_consecutive_recorded_states(tmp_path, every):
    model = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    states = [keep(model)]
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=every) as recorder:

        def after(step):
            recorder.log(loss=torch.tensor(step / 2))
            if step % every == 0:
                states.append(keep(model))

        train(model, optimizer, 12, after)
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == list(range(every, 13, every)) and list(run) == ["0", "3", "5"]
    for name in run:
        distance, per_weight, changed, idle = expected(states, run, name)
        np.testing.assert_allclose(run[name].distance, distance, rtol=2e-7)  # kept as float32
        np.testing.assert_allclose(run[name].distance_per_weight, per_weight, rtol=2e-7)
        np.testing.assert_allclose(run[name].changed, changed, atol=1e-12)
        np.testing.assert_allclose(run[name].idle, idle, atol=1e-12)
        np.testing.assert_allclose(run.means.distance.sel(layer=name), distance.mean(1), rtol=1e-12)
        np.testing.assert_allclose(run.means.idle.sel(layer=name), idle.mean(1), atol=1e-12)
        np.testing.assert_allclose(run.average(name).idle, idle.mean(0), atol=1e-12)
    assert run.thresholds == {"0": 1e-3, "3": 1e-3, "5": 1e-3}
    assert run.scalars.loss.values.tolist() == [s / 2 for s in run.steps] and (run.scalars.lr == 1e-3).all()
    assert run.snapshots[0] == 0 and run.snapshots[-1] == 12
    assert torch.equal(run.snapshot(0)["0.weight"], states[0]["0.weight"])
    assert torch.equal(run.snapshot(12)["0.bias"], model[0].bias)
    assert {k: v.tolist() for k, v in run.final().items()} == {k: v.tolist() for k, v in model.state_dict().items()}


def test_training_is_bitwise_the_same_with_and_without_a_recorder(tmp_path):
    states = []
    for recorded in (False, True):
        model = small()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        recorder = (
            Recorder(model, tmp_path / "run", optimizer=optimizer, every=1, snapshots="all") if recorded else None
        )
        train(model, optimizer, 15)
        if recorder:
            recorder.close()
        states.append(
            keep(model)
            | {"random": torch.get_rng_state(), "momentum": optimizer.state_dict()["state"][0]["momentum_buffer"]}
        )
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_gradient_accumulation_counts_updates_and_not_batches(tmp_path):
    model = small()
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=2):
        train(model, optimizer, 6, accumulate=3)
    assert open_run(tmp_path / "run").steps.tolist() == [2, 4, 6]


def test_a_step_that_a_gradient_scaler_skips_is_no_update(tmp_path):
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=1):
        for step in range(4):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(torch.randn(2, 3, 8, 8)).float().square().mean() * (float("inf") if step == 1 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert open_run(tmp_path / "run").steps.tolist() == [1, 2, 3]


def test_compiled_models_keep_clean_names_and_a_state_that_loads(tmp_path):
    model = small()
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.Adam(compiled.parameters())
    with Recorder(compiled, tmp_path / "run", optimizer=optimizer, every=1):
        train(compiled, optimizer, 2)
    run = open_run(tmp_path / "run")
    assert list(run) == ["0", "3", "5"]
    small().load_state_dict(run.final())


def test_frozen_layers_stand_still_and_are_marked(tmp_path):
    model = small()
    model[0].requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=1):
        train(model, optimizer, 3)
    run = open_run(tmp_path / "run")
    assert not run.layers["0"].trainable and run.layers["3"].trainable
    assert (run["0"].idle == 1).all() and (run["0"].distance == 0).all() and (run["3"].distance > 0).all()


def test_lazy_layers_are_recorded_from_their_first_update_on(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=1):
        g, states = torch.Generator().manual_seed(1), []
        for _ in range(3):
            loss = model(torch.randn(2, 3, 6, 6, generator=g)).square().mean()
            states.append(keep(model))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    run = open_run(tmp_path / "run")
    assert list(run) == ["0", "2"]
    np.testing.assert_allclose(run["2"].distance, expected([*states, keep(model)], run, "2")[0], rtol=2e-7)


def test_a_group_added_to_the_optimizer_brings_its_layers_where_a_window_begins(tmp_path):
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=2):
        train(model, optimizer, 3)
        model.append(nn.Linear(3, 2))
        optimizer.add_param_group({"params": model[-1].parameters(), "lr": 0.01})
        train(model, optimizer, 5)
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [2, 4, 6, 8] and run.thresholds["6"] == 0.01
    assert np.isnan(run["6"].distance).all("filter").values.tolist() == [True, True, False, False]
    assert not np.isnan(run["0"].distance).any()


def test_without_an_optimizer_step_counts_the_updates(tmp_path):
    model = small()
    with Recorder(model, tmp_path / "run", every=2, threshold={"0": 0.5, "*": 0.25}) as recorder:
        for i in range(4):
            with torch.no_grad():
                model[0].weight.add_(1.0)
            recorder.step(loss=i, note="no number")
    run = open_run(tmp_path / "run")
    assert run.thresholds == {"0": 0.5, "3": 0.25, "5": 0.25}
    np.testing.assert_allclose(run["0"].distance, np.full((2, 4), 27 * 4.0), rtol=1e-6)  # rounding of the float32 sums
    assert run.scalars.loss.values.tolist() == [1, 3] and np.isnan(run.scalars.note).all()


def test_tau_is_each_groups_own_initial_rate(tmp_path):
    model = small()
    optimizer = torch.optim.Adam(
        [{"params": model[0].parameters(), "lr": 0.3}, {"params": model[3:].parameters(), "lr": 0.2}]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.0)  # the rate is 0 now, initial_lr is not
    assert optimizer.param_groups[0]["lr"] == 0 and schedule is not None
    Recorder(model, tmp_path / "run", optimizer=optimizer).close()
    assert open_run(tmp_path / "run").thresholds == {"0": 0.3, "3": 0.2, "5": 0.2}


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda m, p: Recorder(m, p), "threshold="),
        (lambda m, p: Recorder(m, p, optimizer=torch.optim.SGD(m.parameters(), lr=0.0)), "threshold="),
        (lambda m, p: Recorder(m, p, threshold=-1.0), "at least 0"),
        (
            lambda m, p: Recorder(m, p, threshold={"nothing": 1.0}, optimizer=torch.optim.SGD(m.parameters(), lr=0.1)),
            "matches no layer",
        ),
        (lambda m, p: Recorder(nn.Sequential(nn.ReLU()), p, threshold=1.0), "no layer with filters"),
        (lambda m, p: Recorder(m, p, threshold=1.0, every=0), "every"),
        (lambda m, p: Recorder(m, p, threshold=1.0, snapshots="some"), "snapshots"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_training(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        make(small(), tmp_path / "run")


def test_a_path_that_holds_a_run_is_refused_resumed_or_replaced(tmp_path):
    model = small()
    with Recorder(model, tmp_path / "run", threshold=0.1, every=1) as recorder:
        recorder.step()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"resume=True.*overwrite=True"):
        Recorder(model, tmp_path / "run", threshold=0.1)
    with Recorder(model, tmp_path / "run", threshold=0.1, every=1, resume=True) as recorder:
        recorder.step()
        recorder.step()
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [1, 2, 3] and run["0"].gap.values.tolist() == [False, True, False]
    assert np.isnan(run["0"].idle[1]).all() and (run["0"].idle[2] == 1).all() and np.isnan(run.means.changed[1]).all()
    assert (run.average("0").idle == 1).all(), "gaps are left out of averages"
    Recorder(model, tmp_path / "run", threshold=0.1, overwrite=True).close()
    assert len(open_run(tmp_path / "run").steps) == 0
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine", "only the run's own files are replaced"


def test_resuming_at_an_earlier_step_drops_the_records_that_are_made_again(tmp_path):
    model = small()
    with Recorder(model, tmp_path / "run", threshold=0.1, every=1) as recorder:
        for _ in range(600):  # more than a chunk: records in the arrays and in the journal
            recorder.step(x=1)
    with Recorder(model, tmp_path / "run", threshold=0.1, every=1, resume=True, step=300) as recorder:
        recorder.step(x=2)
        recorder.step(x=2)
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == list(range(1, 303)) and run.scalars.x.values.tolist() == [1.0] * 300 + [2.0, 2.0]


def test_a_journal_that_an_earlier_marker_left_never_comes_back(tmp_path):
    model = small()
    recorder = Recorder(model, tmp_path / "run", threshold=0.1, every=1)
    for _ in range(30):
        recorder.step(x=1)
    recorder._target.flush()
    shutil.copytree(tmp_path / "run", tmp_path / "killed")  # what a kill at this moment leaves
    recorder.close()
    (left,) = (tmp_path / "killed").glob("journal-*.bin")
    shutil.copy(left, store.journal(tmp_path / "killed", store.CHUNK))  # of a time when the arrays held a chunk
    recorder = Recorder(model, tmp_path / "killed", threshold=0.1, every=1, resume=True, step=0)
    for i in range(1, store.CHUNK + 1):
        recorder.step(x=2)
        if i % 64 == 0:
            recorder._target.flush()  # at last the arrays hold a chunk again
    run = open_run(tmp_path / "killed")
    assert run.steps.tolist() == list(range(1, store.CHUNK + 1)) and (run.scalars.x == 2).all()
    recorder.close()


def test_resuming_another_model_is_refused(tmp_path):
    Recorder(small(), tmp_path / "run", threshold=0.1).close()
    with pytest.raises(InputError, match="another model"):
        Recorder(nn.Sequential(nn.Linear(2, 2)), tmp_path / "run", threshold=0.1, resume=True)


def test_resuming_keeps_the_threshold_although_the_rate_has_changed(tmp_path):
    model = small()
    Recorder(model, tmp_path / "run", optimizer=torch.optim.Adam(model.parameters(), lr=1e-2)).close()
    Recorder(model, tmp_path / "run", optimizer=torch.optim.Adam(model.parameters(), lr=1e-5), resume=True).close()
    assert set(open_run(tmp_path / "run").thresholds.values()) == {1e-2}


def test_nan_weights_are_said_once_and_recording_goes_on(tmp_path):
    model = small()
    with pytest.warns(RuntimeWarning, match="NaN or infinite weights in 3 at step 2") as caught:
        recorder = Recorder(model, tmp_path / "run", threshold=0.1, every=1)
        recorder.step()
        with torch.no_grad():
            model[3].weight[0, 0, 0, 0] = float("nan")
        recorder.step()
        recorder.step()
        recorder.close()
    assert len(caught) == 1
    run = open_run(tmp_path / "run")
    assert (
        np.isnan(run["3"].distance).sum("filter").values.tolist() == [0, 1, 1] and not np.isnan(run["0"].distance).any()
    )


def test_a_folder_that_cannot_be_made_is_said_once_and_training_goes_on(tmp_path):
    (tmp_path / "file").write_text("in the way")
    model = small()
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.warns(RuntimeWarning, match="training goes on") as caught:
        recorder = Recorder(model, tmp_path / "file" / "run", optimizer=optimizer, every=1)
        train(model, optimizer, 3, lambda step: recorder.log(loss=1.0))
        recorder.close()
    assert len(caught) == 1


def test_even_where_warnings_are_errors_training_goes_on(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Recorder(small(), tmp_path / "file" / "run", threshold=1.0).close()
    assert "nothing is recorded" in capsys.readouterr().err


def test_values_by_filter_are_thinned_beyond_max_bytes_and_layer_means_are_not(tmp_path):
    model = small()
    row = sum(len(each.layer) for each in find_layers(model)[0]) * 8
    with pytest.warns(RuntimeWarning, match="max_bytes") as caught:
        recorder = Recorder(model, tmp_path / "run", threshold=0.1, every=1, max_bytes=20 * row)
        for _ in range(200):
            recorder.step()
        recorder.close()
    assert len(caught) == 1
    run = open_run(tmp_path / "run")
    assert len(run.means.step) == 200 and 10 < len(run["0"].step) <= 20
    assert run["0"].step.values[:10].tolist() == list(range(1, 11)) and run["0"].weight.sum() == run["0"].step[-1]
    assert (run.average("0").idle == 1).all()


def test_a_model_that_moves_to_another_memory_format_is_followed_with_a_gap(tmp_path):
    model = small()
    with Recorder(model, tmp_path / "run", threshold=0.1, every=1) as recorder:
        recorder.step()
        model.to(memory_format=torch.channels_last)
        for _ in range(2):
            with torch.no_grad():
                model[3].weight.add_(1.0)
            recorder.step()
    run = open_run(tmp_path / "run")
    assert run["3"].gap.values.tolist() == [False, True, False]
    np.testing.assert_allclose(run["3"].distance[2], 36.0, rtol=1e-5)


def test_a_parameter_that_is_replaced_is_followed_with_a_gap(tmp_path):
    model = small()
    with Recorder(model, tmp_path / "run", threshold=0.1, every=1) as recorder:
        recorder.step()
        model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
        recorder.step()
        with torch.no_grad():
            model[0].weight.add_(1.0)
        recorder.step()
    run = open_run(tmp_path / "run")
    assert run["0"].gap.values.tolist() == [False, True, False]
    np.testing.assert_allclose(run["0"].distance[2], 27.0, rtol=1e-5)


def test_a_run_can_be_read_while_it_is_written(tmp_path):
    model = small()
    with Recorder(model, tmp_path / "run", threshold=0.1, every=1) as recorder:
        for i in range(300):
            recorder.step(i=i)
        recorder._target.flush()
        run = open_run(tmp_path / "run")
        assert run.steps.tolist() == list(range(1, 301)) and run.scalars.i[-1] == 299
        recorder.step()
    assert len(open_run(tmp_path / "run").steps) == 301


def test_a_small_gpt_is_recorded_by_head(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=30, n_positions=12, bos_token_id=0, eos_token_id=0)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    states = [keep(model)]
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=1, embeddings=True):
        for _ in range(3):
            tokens = torch.randint(30, (2, 12))
            model(tokens, labels=tokens).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            states.append(keep(model))
    run = open_run(tmp_path / "run")
    name = "transformer.h.1.attn.c_attn.v"
    assert run[name].sizes["filter"] == 2 and run["transformer.wte"].sizes["filter"] == 30
    moved = states[1]["transformer.h.1.attn.c_attn.weight"] - states[0]["transformer.h.1.attn.c_attn.weight"]
    heads = moved[:, 32:].unflatten(1, (2, 8)).double().square().sum((0, 2))
    np.testing.assert_allclose(run[name].distance[0], heads, rtol=1e-6)
    GPT2LMHeadModel(model.config).load_state_dict(run.final())


def test_a_resume_into_a_folder_without_a_run_counts_on_from_the_step_that_was_given(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, tmp_path / "new", optimizer=optimizer, every=2, resume=True, step=100) as recorder:
        for _ in range(4):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
    assert open_run(recorder.path).steps.tolist() == [102, 104]
