import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import data, models
from phenoscope.core.errors import InputError
from phenoscope.train import accuracy, fit

SPLIT = data.digits()


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def sgd(model, rate=0.1):
    return torch.optim.SGD(model.parameters(), lr=rate)


def test_a_linear_classifier_learns_the_digits():
    model = linear()
    before = accuracy(model, SPLIT.test)
    result = fit(model, SPLIT.train, optimizer=sgd(model), epochs=3, generator=0)
    assert result.model is model
    assert before < 0.3  # chance is 0.1
    assert accuracy(model, SPLIT.test) > 0.9  # logistic regression on these digits reaches about 0.95


def test_history_holds_the_loss_of_every_batch_before_its_update():
    model, twin = linear(), linear()
    result = fit(model, SPLIT.train, optimizer=sgd(model), epochs=2, batch_size=300, generator=0)
    assert result.history.step.values.tolist() == list(range(1, 11))
    generator, optimizer, losses = torch.Generator().manual_seed(0), sgd(twin), []
    for _ in range(2):
        for x, y in data.batches(SPLIT.train, 300, generator=generator, shuffle=True):
            optimizer.zero_grad()
            loss = functional.cross_entropy(twin(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert result.history.loss.values.tolist() == losses  # the same operations in the same order: the same bits
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_seed_gives_the_same_bits():
    def weights(seed):
        model = linear()
        fit(model, SPLIT.train, optimizer=sgd(model), epochs=1, generator=seed)
        return model[1].weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_schedule_steps_once_an_epoch():
    model = linear()
    optimizer = sgd(model, 1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    fit(model, SPLIT.train, optimizer=optimizer, epochs=5, batch_size=700, schedule=schedule, generator=0)
    assert schedule.last_epoch == 5
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_a_loader_is_trained_on_in_its_own_order():
    model, twin = linear(), linear()
    loader = DataLoader(TensorDataset(*SPLIT.train), batch_size=500)
    fit(model, loader, optimizer=sgd(model), epochs=2)
    optimizer = sgd(twin)
    for x, y in [*loader, *loader]:
        optimizer.zero_grad()
        functional.cross_entropy(twin(x), y).backward()
        optimizer.step()
    assert torch.equal(model[1].weight, twin[1].weight)


def test_inputs_take_the_models_dtype():
    model = linear().double()
    fit(model, SPLIT.train, optimizer=sgd(model), epochs=1, generator=0)
    assert model[1].weight.dtype == torch.float64
    assert 0 <= accuracy(model, SPLIT.test) <= 1


def test_a_loss_that_is_not_finite_stays_in_the_history_and_training_goes_on():
    model = linear()
    losses = iter([1.0, float("nan"), float("inf"), 0.0])

    def broken(outputs, y):
        return functional.cross_entropy(outputs, y) * next(losses)

    history = fit(model, SPLIT.train, optimizer=sgd(model), epochs=2, batch_size=700, loss_fn=broken).history
    assert history.loss.notnull().values.tolist() == [True, False, False, False]  # one NaN spoils the weights for good


def test_another_loss_may_be_given():
    model = linear()
    x, y = SPLIT.train
    target = functional.one_hot(y).float()
    result = fit(model, (x, target), optimizer=sgd(model), epochs=3, loss_fn=functional.mse_loss, generator=0)
    assert result.history.loss[-1] < result.history.loss[0]


def test_progress_ends_with_the_last_step_and_is_not_told_every_step():
    calls = []
    model = linear()
    settings = {"optimizer": sgd(model), "epochs": 2, "batch_size": 20, "generator": 0}
    result = fit(model, SPLIT.train, progress=lambda *call: calls.append(call), **settings)
    assert calls[-1] == (140, 140, result.history.loss.values[-1])
    assert [step for step, _, _ in calls] == sorted({step for step, _, _ in calls})
    assert len(calls) < 70  # a step takes milliseconds even on a busy machine, a call comes every half second


def test_progress_of_a_loader_without_length_has_no_total():
    calls = []
    model = linear()

    class Loader:
        def __iter__(self):
            return data.batches(SPLIT.train, 700)

    fit(model, Loader(), optimizer=sgd(model), epochs=2, progress=lambda *call: calls.append(call))
    assert calls[-1][:2] == (4, None)


def test_an_interrupt_comes_through_and_modes_are_given_back():
    model = linear().eval()

    def interrupted(outputs, y):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, SPLIT.train, optimizer=sgd(model), epochs=1, loss_fn=interrupted)
    assert not any(module.training for module in model.modules())


def test_bad_input_is_named():
    model = linear()
    with pytest.raises(InputError, match="epochs"):
        fit(model, SPLIT.train, optimizer=sgd(model), epochs=0)
    with pytest.raises(InputError, match="at least 1"):
        fit(model, SPLIT.train, optimizer=sgd(model), epochs=1, batch_size=0)
    with pytest.raises(InputError, match="epoch 2"):
        fit(model, iter([SPLIT.train]), optimizer=sgd(model), epochs=2)
    with pytest.raises(InputError, match="no batches"):
        accuracy(model, [])
    with pytest.raises(InputError, match="labels have shape"):
        accuracy(model, (SPLIT.test[0], SPLIT.test[1][:, None]))


def test_accuracy_is_the_share_of_correct_decisions_whatever_the_batch():
    scores = torch.eye(4)[torch.tensor([0, 1, 2, 3, 0, 1, 2])]
    labels = torch.tensor([0, 1, 2, 3, 1, 2, 3])
    for size in (1, 3, 7, 512):
        assert accuracy(nn.Identity(), (scores, labels), batch_size=size) == 4 / 7
    assert accuracy(nn.Identity(), [(scores[:2], labels[:2]), (scores[2:], labels[2:])]) == 4 / 7


def test_accuracy_evaluates_and_leaves_modes_gradients_and_statistics_alone():
    model = models.vgg(width=0.0625, norm="batch", generator=0).train()
    model.block1.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = torch.randn(8, 3, 32, 32), torch.zeros(8, dtype=torch.long)
    assert accuracy(model, (x, y), batch_size=1) == accuracy(model, (x, y))  # batch statistics would differ
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("build", [models.vgg, models.resnet])
def test_reference_networks_train(build):
    model = build(width=0.125, generator=0)
    x, y = data.digits(32, 3, train=192).train
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    history = fit(model, (x, y), optimizer=optimizer, epochs=6, generator=0).history
    assert history.loss[-3:].mean() < 0.9 * history.loss[:3].mean()  # the last epoch against the first
