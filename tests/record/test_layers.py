"""Which weights are filters, and how many, for networks of many kinds."""

import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.record.layers import Layer, clean_name, find_layers, unwrap


def shapes(model, **options):
    return {each.layer.name: (len(each.layer), *each.layer.entries) for each in find_layers(model, **options)[0]}


def test_every_kind_gives_its_filters_channels_and_entries():
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(4, 6, 3),
            "grouped": nn.Conv2d(4, 6, 3, groups=2),
            "up": nn.ConvTranspose2d(4, 6, (3, 2), groups=2),
            "volume": nn.Conv3d(2, 3, 2),
            "wave": nn.Conv1d(2, 3, 5),
            "linear": nn.Linear(7, 2),
            "words": nn.Embedding(10, 4),
            "norm": nn.BatchNorm2d(4),
            "attention": nn.MultiheadAttention(8, 4),
            "cross": nn.MultiheadAttention(8, 2, kdim=3, vdim=5),
        }
    )
    assert shapes(model, embeddings=True) == {
        "conv": (6, 4, 9),
        "grouped": (6, 2, 9),
        "up": (6, 2, 6),
        "volume": (3, 2, 8),
        "wave": (3, 2, 5),
        "linear": (2, 7, 1),
        "words": (10, 4, 1),
        "attention.q": (4, 8, 2),
        "attention.k": (4, 8, 2),
        "attention.v": (4, 8, 2),
        "attention.out_proj": (8, 8, 1),
        "cross.q": (2, 8, 4),
        "cross.k": (2, 3, 4),
        "cross.v": (2, 5, 4),
        "cross.out_proj": (8, 8, 1),
    }
    assert "words" not in shapes(model)


def test_blocks_and_bias_rows_are_views_of_the_same_filter():
    module = nn.MultiheadAttention(8, 2)
    q, k = (each.layer for each in find_layers(nn.ModuleDict({"a": module}))[0][:2])
    with torch.no_grad():
        k.blocks(module.in_proj_weight)[0, 1] = 0  # the second head of k: rows 12 to 16
        k.rows_of(module.in_proj_bias)[1] = 7
    assert (
        not module.in_proj_weight[12:16].any() and module.in_proj_weight[:12].all() and module.in_proj_weight[16:].all()
    )
    assert (module.in_proj_bias == 7).nonzero().flatten().tolist() == [12, 13, 14, 15]
    assert q.bias == "a.in_proj_bias"


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=4, vocab_size=60, bos_token_id=0, eos_token_id=0))


def bert():
    from transformers import BertConfig, BertModel

    return BertModel(
        BertConfig(num_hidden_layers=1, hidden_size=32, num_attention_heads=4, intermediate_size=16, vocab_size=60)
    )


def llama():
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(
        LlamaConfig(
            num_hidden_layers=1,
            hidden_size=32,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=16,
            vocab_size=60,
        )
    )


def bloom():
    from transformers import BloomConfig, BloomModel

    return BloomModel(BloomConfig(n_layer=1, hidden_size=32, n_head=4, vocab_size=60))


@pytest.mark.parametrize(
    "make,expected",
    [
        (
            gpt2,
            {
                "transformer.h.0.attn.c_attn.q": (4, 32, 8),
                "transformer.h.0.attn.c_attn.v": (4, 32, 8),
                "transformer.h.0.attn.c_proj": (32, 32, 1),
                "transformer.h.0.mlp.c_fc": (128, 32, 1),
            },
        ),
        (
            bert,
            {"encoder.layer.0.attention.self.query": (4, 32, 8), "encoder.layer.0.attention.output.dense": (32, 32, 1)},
        ),
        (
            llama,
            {
                "layers.0.self_attn.q_proj": (4, 32, 8),
                "layers.0.self_attn.k_proj": (2, 32, 8),
                "layers.0.self_attn.o_proj": (32, 32, 1),
            },
        ),
        (
            bloom,
            {"h.0.self_attention.query_key_value.q": (4, 32, 8), "h.0.self_attention.query_key_value.k": (4, 32, 8)},
        ),
    ],
)
def test_transformers_split_by_head_without_being_told(make, expected):
    found = shapes(make())
    assert expected.items() <= found.items()


def test_interleaved_heads_are_the_rows_that_the_network_itself_takes():
    model = bloom()
    attention = model.h[0].self_attention
    layer = next(e.layer for e in find_layers(model)[0] if e.layer.name.endswith("query_key_value.k"))
    fused = torch.randn(1, 3, 96)
    _, key, _ = attention._reshape(fused)
    mine = layer.rows_of(fused[0, 0])  # (heads, head size), of the first position
    assert torch.equal(mine, key[0, :, 0]) or torch.equal(mine, key[0, :, :, 0])


def test_gpt2_heads_are_the_columns_that_the_network_itself_takes():
    model = gpt2()
    weight = model.transformer.h[0].attn.c_attn.weight
    layer = next(e.layer for e in find_layers(model)[0] if e.layer.name.endswith("c_attn.k"))
    third = layer.blocks(weight)[0, 2]  # (channels, entries)
    assert torch.equal(third, weight[:, 32 + 16 : 32 + 24])


def test_heads_by_pattern_for_networks_that_do_not_say():
    model = nn.ModuleDict({"block": nn.ModuleDict({"qkv": nn.Linear(12, 36), "other": nn.Linear(12, 8)})})
    assert shapes(model)["block.qkv"] == (36, 12, 1)
    found = shapes(model, heads={"*.qkv": 3, "*.other": 2})
    assert found == {
        "block.qkv.q": (3, 12, 4),
        "block.qkv.k": (3, 12, 4),
        "block.qkv.v": (3, 12, 4),
        "block.other": (2, 12, 4),
    }


@pytest.mark.parametrize(
    "heads,message", [({"*.nothing": 2}, "matches no projection"), ({"*.other": 3}, "do not divide")]
)
def test_heads_that_fit_nothing_are_refused(heads, message):
    model = nn.ModuleDict({"block": nn.ModuleDict({"other": nn.Linear(12, 8)})})
    with pytest.raises(InputError, match=message):
        find_layers(model, heads=heads)


def test_a_shared_weight_comes_once_under_its_first_name():
    a = nn.Linear(4, 4)
    tied = nn.Linear(4, 4)
    tied.weight = a.weight
    assert list(shapes(nn.ModuleDict({"a": a, "again": a, "tied": tied}))) == ["a"]


def test_names_are_clean_under_compile_and_wrappers():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    model[1] = torch.compile(model[1], backend="eager")
    whole = torch.compile(model, backend="eager")
    assert list(shapes(whole)) == ["0", "1.0"] and unwrap(whole) is model
    assert clean_name("a._orig_mod.b._checkpoint_wrapped_module.weight") == "a.b.weight"
    assert clean_name("my_orig_mod.weight") == "my_orig_mod.weight"
    assert find_layers(whole)[0][1].layer.parameter == "1.0.weight"


@pytest.mark.parametrize(
    "wrap,stored",
    [
        (torch.nn.utils.parametrizations.spectral_norm, "0.parametrizations.weight.original"),
        (torch.nn.utils.parametrizations.weight_norm, "0.parametrizations.weight.original1"),
        (lambda m: torch.nn.utils.prune.l1_unstructured(m, "weight", 0.5), "0.weight_orig"),
    ],
)
def test_reparametrized_weights_are_found_where_they_are_stored(wrap, stored):
    import torch.nn.utils.prune  # noqa: F401 - not loaded by torch itself

    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    wrap(model[0])
    (only,) = find_layers(model)[0]
    assert only.layer.parameter == stored and stored in model.state_dict() and only.layer.shape == (4, 3, 3, 3)
    assert only.current() is only.weight


def test_lazy_modules_wait_until_they_are_made():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))
    assert find_layers(model) == ([], ["0", "2"])
    model(torch.randn(1, 3, 5, 5))
    assert list(shapes(model)) == ["0", "2"]


def test_a_layer_comes_back_from_json():
    for each in find_layers(gpt2())[0]:
        assert Layer.from_json({**each.layer.to_json(), "unknown": 1}) == each.layer
