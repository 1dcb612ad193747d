import torch

from phenoscope import data
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import tickets as bench

LAB = Lab(0)


def test_a_tenth_of_the_signals_is_held_out_for_validation():
    split, make_model = bench.setting(LAB, model=bench.mlp, dataset=bench.mnist1d, seed=0)
    assert [len(part[1]) for part in (split.train, split.validation, split.test)] == [3500, 500, 1000]
    network = make_model(generator=1)
    assert [tuple(p.shape) for p in network.parameters() if p.ndim == 2] == [(100, 40), (100, 100), (10, 100)]


def test_data_without_a_validation_part_give_an_eighth_of_their_training_part():
    split, _ = bench.setting(LAB, model=bench.mlp, dataset=data.digits, seed=0)
    assert [len(part[1]) for part in (split.train, split.validation, split.test)] == [1225, 175, 397]
    rows = torch.cat([split.train[0], split.validation[0]]).flatten(1)
    whole = data.load(data.digits, generator=LAB.seed("split", 0)).train[0].flatten(1)
    assert torch.equal(rows.sum(0).round(decimals=2), whole.sum(0).round(decimals=2))


def test_the_rate_falls_tenfold_at_half_and_three_quarters_and_looks_end_with_the_training():
    split, _ = bench.setting(LAB, model=bench.mlp, dataset=data.digits, seed=0)
    recipe = bench.recipe(split, steps=1200)
    rates = [round(recipe["schedule"](step), 6) for step in (0, 599, 600, 899, 900, 1199)]
    assert rates == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert recipe["watch"].at[0] == 0 and recipe["watch"].at[-1] == 1200


def test_nothing_is_held_out_where_nothing_is_chosen():
    for dataset, n in ((data.digits, 1400), (data.mnist1d, 4000)):
        split, _ = bench.setting(LAB, model=bench.mlp, dataset=dataset, seed=0, validation=False)
        assert len(split.train[1]) == n and split.validation is None


def test_a_training_is_a_recipe_that_nobody_looks_at():
    split, _ = bench.setting(LAB, model=bench.mlp, dataset=data.digits, seed=0)
    recipe, training = bench.recipe(split, steps=40), bench.training(steps=40)
    assert set(recipe) - set(training) == {"watch"}
    assert [recipe["schedule"](s) for s in range(40)] == [training["schedule"](s) for s in range(40)]
