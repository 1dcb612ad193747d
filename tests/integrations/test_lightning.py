"""The Lightning callback writes what a Recorder in a plain loop writes, whatever the trainer does around it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError

pl = pytest.importorskip("lightning.pytorch")
from phenoscope.integrations.lightning import Record, modules_of  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* not empty"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),  # Lightning's own call of torch
]
SETTINGS = {"every": 2, "threshold": 1e-3}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def batches(count=12, size=4):
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(count * size, 1, 6, 6, generator=g), torch.randint(3, (count * size,), generator=g)
    return DataLoader(TensorDataset(x, y), batch_size=size)


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()

    def training_step(self, batch, index):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("twice", 2 * loss.detach())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def trainer(folder, *callbacks, epochs=1, **settings):
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False)
    checkpoints = any(isinstance(each, pl.callbacks.ModelCheckpoint) for each in callbacks)
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        enable_checkpointing=checkpoints,
        callbacks=list(callbacks),
        **quiet,
        **settings,
    )


def plain(path, *, epochs=1, count=12, accumulate=1, autocast=False, **settings):
    """The same training as a loop, recorded by a Recorder; returns the network."""
    net = nn.ModuleDict({"net": network()})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    with Recorder(net, path, optimizer=optimizer, **{**SETTINGS, **settings}) as recorder:
        for _ in range(epochs):
            for i, (x, y) in enumerate(batches(count)):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    loss = nn.functional.cross_entropy(net["net"](x), y)
                (loss / accumulate).backward()
                if (i + 1) % accumulate == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                    recorder.log(loss=loss)
    return net


def same(run, other, at=slice(None)):
    """Bitwise: the same operations in the same order on the same weights."""
    assert list(run) == list(other)
    for name in run:
        for measure in ("distance", "changed", "idle"):
            np.testing.assert_array_equal(run[name][measure].values[at], other[name][measure].values[at], err_msg=name)


def test_the_run_is_that_of_a_recorder_in_a_plain_loop_and_training_is_untouched(tmp_path):
    module = Classifier()
    trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), epochs=2).fit(module, batches())
    net = plain(tmp_path / "plain", epochs=2)
    run, other = open_run(tmp_path / "run"), open_run(tmp_path / "plain")
    assert run.steps.tolist() == list(range(2, 25, 2))
    same(run, other)
    assert float(run["net.0"].changed.mean()) > 0
    np.testing.assert_array_equal(run.scalars.loss, other.scalars.loss)
    np.testing.assert_allclose(run.scalars.twice, 2 * run.scalars.loss, rtol=1e-6)  # kept as float32
    assert run.scalars.lr.values.tolist() == pytest.approx([0.1] * 12)
    without = Classifier()
    trainer(tmp_path, epochs=2).fit(without, batches())
    for state in (net.state_dict(), without.state_dict(), run.final()):
        assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())


def test_accumulated_gradients_count_as_one_update(tmp_path):
    module = Classifier()
    trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), accumulate_grad_batches=3).fit(module, batches())
    plain(tmp_path / "plain", accumulate=3)
    run, other = open_run(tmp_path / "run"), open_run(tmp_path / "plain")
    assert run.steps.tolist() == [2, 4]
    same(run, other)
    np.testing.assert_allclose(run.scalars.loss, other.scalars.loss, rtol=1e-6)  # divided by 3 and multiplied again


def test_mixed_precision_records_the_weights_that_the_optimizer_updates(tmp_path):
    trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), precision="bf16-mixed").fit(Classifier(), batches())
    plain(tmp_path / "plain", autocast=True)
    plain(tmp_path / "full")
    same(open_run(tmp_path / "run"), open_run(tmp_path / "plain"))
    with pytest.raises(AssertionError):  # full precision is another training: the comparison can fail
        same(open_run(tmp_path / "run"), open_run(tmp_path / "full"))


def test_a_module_in_bfloat16_is_recorded(tmp_path):
    trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), precision="bf16-true").fit(Classifier(), batches())
    run = open_run(tmp_path / "run")
    assert run.final()["net.0.weight"].dtype == torch.bfloat16 and float(run["net.0"].distance.mean()) > 0


def saves(folder):
    return pl.callbacks.ModelCheckpoint(folder / "saved", every_n_epochs=1, save_top_k=-1)


class Stops(pl.Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == 9:
            raise RuntimeError("the machine is gone")


def test_a_resumed_training_goes_on_with_the_run_and_marks_the_gap(tmp_path):
    """Stopped at update 9 with a checkpoint of update 5: records 6 and 8 are of updates that are made again."""
    record = Record(tmp_path / "run", **SETTINGS)
    with pytest.raises(RuntimeError, match="gone"):
        trainer(tmp_path, record, saves(tmp_path), Stops(), epochs=3).fit(Classifier(), batches(5))
    assert open_run(tmp_path / "run").steps.tolist() == [2, 4, 6, 8]
    module, checkpoint = Classifier(), tmp_path / "saved" / "epoch=0-step=5.ckpt"
    # overwrite=True, as a script may always say, is for trainings from the start
    again = Record(tmp_path / "run", **SETTINGS, overwrite=True)
    resumed = trainer(tmp_path, again, saves(tmp_path), epochs=3)
    resumed.fit(module, batches(5), ckpt_path=checkpoint, weights_only=False)
    plain(tmp_path / "plain", epochs=3, count=5)
    run, other = open_run(tmp_path / "run"), open_run(tmp_path / "plain")
    assert run.steps.tolist() == other.steps.tolist() == [2, 4, 6, 8, 10, 12, 14]
    assert run["net.0"].gap.values.nonzero()[0].tolist() == [2]
    same(run, other, at=[0, 1, 3, 4, 5, 6])
    assert all(torch.equal(other.final()[name], value) for name, value in module.state_dict().items())


def test_fitting_on_with_the_same_trainer_goes_on_with_the_run(tmp_path):
    module, record = Classifier(), Record(tmp_path / "run", **SETTINGS)
    t = trainer(tmp_path, record)
    t.fit(module, batches())
    t.fit_loop.max_epochs = 2
    t.fit(module, batches())
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == list(range(2, 25, 2)) and run.means.gap.values.nonzero()[0].tolist() == [6]


def test_a_run_is_not_replaced_unasked(tmp_path):
    record = Record(tmp_path / "run", **SETTINGS)
    trainer(tmp_path, record).fit(Classifier(), batches(4))
    with pytest.raises(InputError, match="overwrite=True"):
        trainer(tmp_path, record).fit(Classifier(), batches(4))
    trainer(tmp_path, Record(tmp_path / "run", **SETTINGS, overwrite=True)).fit(Classifier(), batches(2))
    assert open_run(tmp_path / "run").steps.tolist() == [2]


def test_a_checkpoint_made_without_the_callback_is_gone_on_with(tmp_path):
    t = trainer(tmp_path)
    t.fit(Classifier(), batches())
    t.save_checkpoint(tmp_path / "old.ckpt")
    plain(tmp_path / "run")
    record = Record(tmp_path / "run", **SETTINGS)
    resumed = trainer(tmp_path, record, epochs=2)
    resumed.fit(Classifier(), batches(), ckpt_path=tmp_path / "old.ckpt", weights_only=False)
    assert open_run(tmp_path / "run").steps.tolist() == list(range(2, 25, 2))


def test_settings_that_the_trainer_decides_are_refused(tmp_path):
    with pytest.raises(InputError, match="step= is not to be given"):
        Record(tmp_path / "run", step=3)


def test_a_trial_run_records_nothing(tmp_path):
    trainer(tmp_path, Record(tmp_path / "run", **SETTINGS), fast_dev_run=True).fit(Classifier(), batches())
    assert not (tmp_path / "run").exists()


class Gan(pl.LightningModule):
    """The discriminator makes two updates for each of the generator's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 5))
        self.discriminator = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
        self.criterion = nn.BCEWithLogitsLoss()

    def training_step(self, batch, index):
        g, d = self.optimizers()
        noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(index))
        (x,) = batch
        loss = self.criterion(self.discriminator(x), torch.ones(4, 1))
        loss = loss + self.criterion(self.discriminator(self.generator(noise).detach()), torch.zeros(4, 1))
        d.zero_grad()
        self.manual_backward(loss)
        d.step()
        if index % 2:
            loss = self.criterion(self.discriminator(self.generator(noise)), torch.ones(4, 1))
            g.zero_grad()
            self.manual_backward(loss)
            g.step()
            self.log("fooled", loss.detach())

    def configure_optimizers(self):
        return [
            torch.optim.Adam(self.generator.parameters(), lr=1e-2),
            torch.optim.Adam(self.discriminator.parameters(), lr=1e-3),
        ]


def real(count=12):
    return DataLoader(TensorDataset(torch.randn(4 * count, 5, generator=torch.Generator().manual_seed(2))), 4)


def test_each_module_of_a_gan_is_a_run_counted_by_its_own_optimizer(tmp_path):
    trainer(tmp_path, Record(tmp_path / "gan", every=2)).fit(Gan(), real())
    g, d = open_run(tmp_path / "gan" / "generator"), open_run(tmp_path / "gan" / "discriminator")
    assert g.steps.tolist() == [2, 4, 6] and d.steps.tolist() == [2, 4, 6, 8, 10, 12]
    assert list(g) == list(d) == ["0", "2"]
    assert set(g.thresholds.values()) == {1e-2} and set(d.thresholds.values()) == {1e-3}
    assert np.isfinite(g.scalars.fooled.values).all()
    assert {p.name for p in (tmp_path / "gan").iterdir()} == {"generator", "discriminator"}


def test_each_run_of_a_gan_is_resumed_at_its_own_count(tmp_path):
    first = trainer(tmp_path, Record(tmp_path / "gan", every=2))
    first.fit(Gan(), real(6))
    first.save_checkpoint(tmp_path / "gan.ckpt")  # after 6 updates of the discriminator, 3 of the generator
    resumed = trainer(tmp_path, Record(tmp_path / "gan", every=2), epochs=2)
    resumed.fit(Gan(), real(6), ckpt_path=tmp_path / "gan.ckpt", weights_only=False)
    g, d = open_run(tmp_path / "gan" / "generator"), open_run(tmp_path / "gan" / "discriminator")
    assert g.steps.tolist() == [2, 4, 6] and g.means.gap.values.tolist() == [False, True, False]
    assert (
        d.steps.tolist() == [2, 4, 6, 8, 10, 12] and d.means.gap.values.tolist() == [False] * 3 + [True] + [False] * 2
    )


def test_a_module_of_a_gan_has_settings_and_sinks_of_its_own(tmp_path):
    got = {"generator": [], "discriminator": []}
    modules = {name: {"sinks": [lambda step, values, name=name: got[name].append(step)]} for name in got}
    modules["generator"] |= {"layers": "2", "threshold": 0.5}
    trainer(tmp_path, Record(tmp_path / "gan", every=3, modules=modules)).fit(Gan(), real())
    g, d = open_run(tmp_path / "gan" / "generator"), open_run(tmp_path / "gan" / "discriminator")
    assert g.thresholds == {"2": 0.5} and d.thresholds == {"0": 1e-3, "2": 1e-3}
    assert got == {"generator": [3, 6], "discriminator": [3, 6, 9, 12]}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"modules": {"critic": {}}}, "'critic', but there is generator, discriminator"),
        ({"sinks": [print]}, "sinks= is of one run"),
        ({"live": True}, "live= is of one run"),
    ],
)
def test_settings_that_do_not_fit_the_modules_are_refused(tmp_path, settings, says):
    with pytest.raises(InputError, match=says):
        trainer(tmp_path, Record(tmp_path / "gan", **settings)).fit(Gan(), real())
    assert not (tmp_path / "gan").exists()


class Split(Classifier):
    """Matrices in one optimizer, biases in another, as with Muon."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, index):
        for each in self.optimizers():
            each.zero_grad()
        loss = super().training_step(batch, index)
        self.manual_backward(loss)
        for each in self.optimizers():
            each.step()

    def configure_optimizers(self):
        first, last = self.net[0], self.net[3]
        return [
            torch.optim.SGD([first.weight], lr=0.2),
            torch.optim.SGD([first.bias, last.bias, last.weight], lr=0.05),
        ]


def test_a_network_whose_layers_are_in_several_optimizers_is_one_run_with_each_ones_rate(tmp_path):
    trainer(tmp_path, Record(tmp_path / "run", every=4)).fit(Split(), batches())
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [4, 8, 12] and run.thresholds == {"net.0": 0.2, "net.3": 0.05}


def test_modules_are_found_through_wrappers_and_next_to_each_other():
    def sgd(*modules):
        return torch.optim.SGD([p for module in modules for p in module.parameters()], lr=1)

    coder = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("encoder", "decoder", "critic")})
    two = [sgd(coder["encoder"], coder["decoder"]), sgd(coder["critic"])]
    found = modules_of(nn.ModuleDict({"model": coder}), two)
    assert found == {
        "model.encoder": (coder["encoder"], two[0]),
        "model.decoder": (coder["decoder"], two[0]),
        "model.critic": (coder["critic"], two[1]),
    }
