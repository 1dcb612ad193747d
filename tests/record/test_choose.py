"""Which layers are recorded: by pattern, type and predicate, expert by expert, and a spread of thousands."""

import pytest
import torch
from torch import nn

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError
from phenoscope.prune import Masks
from phenoscope.record import evolution
from phenoscope.record.layers import find_layers


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))


def network():
    return nn.ModuleDict(
        {
            "stem": nn.Conv2d(3, 8, 3),
            "encoder": nn.Sequential(Block(), Block()),
            "up": nn.ConvTranspose2d(8, 4, 2),
            "head": nn.Linear(8, 2),
        }
    )


def names(model, layers=None, **options):
    return [each.layer.name for each in find_layers(model, layers=layers, **options)[0]]


EVERYTHING = names(network())
ATTENTION = [name for name in EVERYTHING if ".attn." in name]


@pytest.mark.parametrize(
    "layers,expected",
    [
        (None, EVERYTHING),
        ("*", EVERYTHING),
        ("encoder.*", [name for name in EVERYTHING if name.startswith("encoder.")]),
        ("encoder", [name for name in EVERYTHING if name.startswith("encoder.")]),
        ("*.attn", ATTENTION),
        ("*.attn.q", ["encoder.0.attn.q", "encoder.1.attn.q"]),
        ("encoder.[1].mlp.?", ["encoder.1.mlp.0", "encoder.1.mlp.2"]),
        (nn.Conv2d, ["stem"]),
        (Block, [name for name in EVERYTHING if name.startswith("encoder.")]),
        (nn.MultiheadAttention, ATTENTION),
        (lambda name, module: name.endswith(".k"), ["encoder.0.attn.k", "encoder.1.attn.k"]),
        (lambda name, module: getattr(module, "out_features", 0) == 2, ["head"]),
        (["head", nn.Conv2d, "*.0.attn.v"], ["stem", "encoder.0.attn.v", "head"]),
    ],
)
def test_patterns_types_and_predicates_choose_in_network_order(layers, expected):
    assert names(network(), layers) == expected


@pytest.mark.parametrize(
    "layers,message",
    [
        ("encodr.*", "near names are encoder"),
        ("heed", "near names are head"),
        (["head", "xyz"], "'xyz', which matches no layer; layers are stem, encoder.0.attn.q.*\\.\\.\\."),
        (nn.Conv3d, "Conv3d, of which this model has none; its layers are Conv2d, MultiheadAttention"),
        (lambda name, module: False, "accepts none of the 15 layers"),
        ([], "layers= is empty"),
        (int, "types of modules"),
        ([3], "not 3"),
    ],
)
def test_a_choice_that_finds_nothing_is_refused_with_what_is_near(layers, message):
    with pytest.raises(InputError, match=message):
        names(network(), layers)


def test_wrappers_do_not_change_the_names_that_a_pattern_sees():
    assert names(torch.compile(network(), backend="eager"), "encoder.0.mlp.*") == ["encoder.0.mlp.0", "encoder.0.mlp.2"]


def test_a_shared_weight_is_found_under_the_name_that_was_chosen():
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    assert names(model) == ["a"] and names(model, "b") == ["b"]


def test_a_lazy_layer_can_be_chosen_before_it_is_made():
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyLinear(2))
    assert find_layers(model, layers="1") == ([], ["1"])
    with pytest.raises(InputError, match="'7'"):
        find_layers(model, layers="7")


def test_the_recorder_keeps_only_what_was_chosen_with_the_same_numbers(tmp_path):
    model = network()
    recorders = [
        Recorder(model, tmp_path / str(i), every=1, threshold=0.05, layers=choice)
        for i, choice in enumerate([None, ["stem", "*.k"]])
    ]
    torch.manual_seed(0)
    for _ in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.05 * torch.randn_like(p))
        for recorder in recorders:
            recorder.step()
    for recorder in recorders:
        recorder.close()
    whole, part = open_run(tmp_path / "0"), open_run(tmp_path / "1")
    assert list(part) == ["stem", "encoder.0.attn.k", "encoder.1.attn.k"]
    for name in part:
        assert part[name].equals(whole[name])
    with Recorder(model, tmp_path / "1", every=1, layers=["stem", "*.k"], resume=True, threshold=0.05) as recorder:
        recorder.step()
    assert list(open_run(tmp_path / "1")) == list(part)


def test_of_thousands_of_layers_a_thousand_are_recorded_spread_within_each_kind(tmp_path):
    blocks = nn.ModuleList(
        nn.ModuleDict({"gate": nn.Linear(2, 2), "experts": nn.ModuleList(nn.Linear(2, 2) for _ in range(60))})
        for _ in range(20)
    )
    model = nn.ModuleDict({"blocks": blocks, "head": nn.Linear(2, 2)})
    with pytest.warns(RuntimeWarning, match="1221 layers, of which 1000 are recorded.*layers='\\*'"):
        Recorder(model, tmp_path / "run", threshold=0.1, final=False).close()
    kept = list(open_run(tmp_path / "run"))
    assert len(kept) == 1000 and "head" in kept
    assert sum(name.endswith("gate") for name in kept) == 20
    by_block = [sum(f"blocks.{i}.experts." in name for name in kept) for i in range(20)]
    assert max(by_block) - min(by_block) <= 1  # 979 of 1200, evenly
    assert len(names(model)) == 1221
    Recorder(model, tmp_path / "all", threshold=0.1, final=False, layers="*").close()
    assert len(open_run(tmp_path / "all")) == 1221


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(
            num_hidden_layers=1, hidden_size=16, num_attention_heads=2, num_key_value_heads=2, intermediate_size=12,
            num_local_experts=3, num_experts_per_tok=1, vocab_size=40,
        )
    )  # fmt: skip


def gpt_oss():
    from transformers import GptOssConfig, GptOssForCausalLM

    return GptOssForCausalLM(
        GptOssConfig(
            num_hidden_layers=1, hidden_size=16, num_attention_heads=2, num_key_value_heads=2, intermediate_size=12,
            num_local_experts=3, num_experts_per_tok=1, vocab_size=40, head_dim=8,
        )
    )  # fmt: skip


class GroupedExperts(nn.Module):
    """Weights stored (experts, inputs, outputs), which only the width tells."""

    def __init__(self):
        super().__init__()
        self.num_experts, self.hidden_size = 3, 16
        self.gate_up_proj = nn.Parameter(torch.randn(3, 16, 24))
        self.down_proj = nn.Parameter(torch.randn(3, 12, 16))


@pytest.mark.parametrize("make", [mixtral, gpt_oss, lambda: nn.ModuleDict({"experts": GroupedExperts()})])
def test_every_expert_is_a_layer_whose_filters_are_its_outputs(make):
    found = {each.layer.name: each for each in find_layers(make(), layers="*experts.*")[0]}
    assert len(found) == 6
    for expert in range(3):
        forms = {
            n: (len(f.layer), *f.layer.entries)
            for n, f in found.items()
            if f".{expert}." in f".{n}".split("experts")[1]
        }
        assert sorted(forms.values()) == [(16, 12, 1), (24, 16, 1)]
        assert {n.rpartition(".")[2]: form[0] for n, form in forms.items()} == {"gate_up_proj": 24, "down_proj": 16}


@pytest.mark.parametrize("make", [mixtral, gpt_oss])
def test_only_the_expert_that_moved_has_moved(make, tmp_path):
    model = make()
    experts = next(m for m in model.modules() if hasattr(m, "gate_up_proj"))
    torch.manual_seed(0)
    before = [experts.gate_up_proj[1].detach().clone(), experts.down_proj[1].detach().clone()]
    with Recorder(model, tmp_path / "run", every=1, threshold=0.05, layers="*.experts.*") as recorder, torch.no_grad():
        experts.gate_up_proj[1].add_(0.1 * torch.randn_like(experts.gate_up_proj[1]))
        experts.down_proj[1, 2, 3] += 1
        recorder.step()
    run = open_run(tmp_path / "run")
    moved = [name for name in run if float(run[name]["distance"].sum()) > 0]
    prefix = "model.layers.0.mlp.experts.1"
    assert moved == [f"{prefix}.gate_up_proj", f"{prefix}.down_proj"]
    axes = {"filters": 1, "channels": 0} if make is gpt_oss else {}  # of one expert's matrix
    for name, old, new in zip(moved, before, [experts.gate_up_proj[1], experts.down_proj[1]], strict=True):
        want = evolution(old, new.detach(), 0.05, **axes)
        torch.testing.assert_close(torch.tensor(run[name]["changed"].to_numpy()[0]), want.changed)
        torch.testing.assert_close(
            torch.tensor(run[name]["distance"].to_numpy()[0]).double(), want.distance, rtol=1e-5, atol=0
        )
    filters = {moved[0]: [0, 5]}
    from phenoscope.record import Filters

    masks = Masks.from_filters(model, Filters(filters, run.layers))
    off = (~masks["model.layers.0.mlp.experts.gate_up_proj"].bool()).nonzero()
    assert set(off[:, 0].tolist()) == {1} and set(off[:, 2 if make is gpt_oss else 1].tolist()) == {0, 5}


def test_zeroing_an_experts_filter_takes_its_bias_and_no_other():
    found = {each.layer.name: each.layer for each in find_layers(gpt_oss())[0]}
    layer = found["model.layers.0.mlp.experts.2.gate_up_proj"]
    bias = torch.zeros(3, 24)
    layer.rows_of(bias)[5] = 1
    assert bias.nonzero().tolist() == [[2, 5]]
