"""The pages of benchmarks say what docs/measured says."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("benchmarks", ROOT / "tools" / "benchmarks.py")
benchmarks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmarks)

SINKS = {
    "training alone": {"step": 400.0, "against alone": 1.0, "in the loop": 0.0},
    "no sink": {"step": 404.0, "against alone": 1.01, "in the loop": 4.4},
    "W&B": {"step": 406.0, "against alone": 1.015, "in the loop": 4.5},
}
RECORDING = {
    "machine": "2 cores of a processor",
    "torch": "2.13.0",
    "date": "2026-11-21",
    "model": "VGG-16 at 32x32, batch 64",
    "small model": "perceptron 64-64",
    "convolution weights": 14_710_464,
    "extra memory over the weights": 1.001,
    "left out": ["mlflow: not installed"],
    "ms": {"training step": 400.0, "phenoscope": 4.0, "obvious PyTorch": 25.0, "TensorBoard add_histogram": 106.0},
    "sinks": {"large": SINKS, "small": SINKS},
    "processor ms a record": {"no sink": 5.5, "W&B": 8.25},
}
FLEET = {
    "machine": "2 cores of a processor",
    "torch": "2.13.0",
    "date": "2026-11-21",
    "threads": 2,
    "rounds": 7,
    "batch": 128,
    "relative difference from fit after 100 steps": 1.9e-7,
    "rows": [
        {"case": "mlp 16", "members": 64, "clock": {"loop": 937.6, "vmap": 82.3, "jax": 23.1, "fleet": 37.0}},
        {"case": "cnn 8x8", "members": 32, "clock": {"loop": 3066.2, "vmap": 1175.2, "fleet": 731.7}},
    ],
}

KERNELS = {
    "machine": "2 cores of a processor",
    "torch": "2.13.0",
    "date": "2026-11-21",
    "infinite": {
        "threads": 2,
        "rows": [
            {
                "case": "mlp",
                "dtype": "float32",
                "MiB": {"phenoscope": 41.0, "neural-tangents": 184.0},
                "clock": {"seconds": {"phenoscope": 0.05, "neural-tangents": 0.5}, "ratio": {"neural-tangents": 10.0}},
            }
        ],
    },
    "cntk": {
        "rows": [
            {
                "side": 8, "channels": 1, "depth": 3, "dtype": "float64",
                "clock": {"torch": 1.3, "compiled": 0.05, "ratio": 26.0},
            }
        ]
    },
    "empirical": {
        "rows": [
            {
                "kernel": "full",
                "n": 32,
                "seconds": {"peer": 20.0, "ours": 2.0, "ratio": 10.0},
                "bytes": {"peer": 7.0 * 2**30, "ours": 0.25 * 2**30, "ratio": 28.0},
            }
        ]
    },
    "regression": {
        "points": 10_000,
        "rows": [{"contender": "kernel_regression", "clock": 12.5, "processor": 20.0, "matrices": 2.03}],
    },
}  # fmt: skip


def test_kernels_stand_beside_their_peers():
    short, whole = benchmarks.kernels(KERNELS), benchmarks.kernels_in_full(KERNELS)
    assert whole.startswith(short)
    assert "beside neural-tangents | 0.050 | 0.500 | 10.0 | 41.0 / 184 MiB |" in short
    assert "N = 32, full: beside `torch.func` contraction | 2.00 | 20.0 | 10.0 | 256 / 7,168 MiB |" in short
    assert "| 8x8x1, depth 3, float64 | 1.30 | 0.050 | 26.0 |" in whole
    assert "| `kernel_regression` | 12.5 | 20.0 | 2.03 |" in whole


@pytest.fixture
def kept():
    found = benchmarks.read(benchmarks.KEPT)
    if not found:
        pytest.skip("nothing is kept yet: python tools/benchmarks.py --run")
    return found


def test_the_page_is_the_one_that_the_kept_figures_give(kept):
    assert benchmarks.PAGE.read_text(encoding="utf-8") == benchmarks.page(kept)


def test_the_readme_s_figures_are_those_that_are_kept(kept):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert benchmarks.with_sections(readme, kept) == readme


def test_every_benchmark_that_is_named_is_there():
    assert all((ROOT / "benchmarks" / script).is_file() for script in benchmarks.SCRIPTS.values())


@pytest.mark.parametrize(
    ("value", "text"),
    [(937.6, "938"), (82.31, "82.3"), (4.44, "4.44"), (0.0391, "0.039"), (10916.5, "10,916"), (None, "")],
)
def test_numbers_are_shown_to_three_digits(value, text):
    assert benchmarks.short(value) == text


def test_the_recording_s_table_orders_the_alternatives_by_what_they_take():
    text = benchmarks.recording(RECORDING)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[1] == "| --- | ---: | ---: |" and rows[2] == "| training step | 400 |  |"
    assert rows[3] == "| measuring the 14.7 M convolution weights | 4.00 | 1.0 % |"
    assert rows[4] == "| the whole recorder in the loop | 4.40 | 1.1 % |"
    assert rows[-2:] == [
        "| the same measures in obvious PyTorch | 25.0 | 6.2 % |",
        "| TensorBoard `add_histogram` | 106 | 26.5 % |",
    ]


def test_the_page_has_a_row_a_sink_and_says_what_was_left_out():
    text = benchmarks.page({"recording": RECORDING})
    assert "| W&B | 4.50 | 1.5 % | 8.25 | 406 | 1.5 % |" in text
    assert "Left out: mlflow: not installed." in text and "## The fleet" not in text


def test_a_contender_that_did_not_take_part_leaves_its_cell_empty():
    text = benchmarks.fleet(FLEET)
    assert "| MLP 64-16-16-10 | 64 | 938 | 82.3 | 23.1 | 37.0 |" in text
    assert "| CNN, 8x8 images | 32 | 3,066 | 1,175 |  | 732 |" in text and "1.9e-07" in text


def test_whole_studies_have_their_seconds_and_every_case_a_row():
    clock = {"loop": 412.0, "fleet": 103.0, "ratio": 4.0}
    text = benchmarks.empirical(
        FLEET
        | {
            "threads": 1,
            "studies": [{"study": "lottery-ticket", "clock": clock}],
            "rows": [{"study": "lottery-ticket", "case": "controls", "members": 12, "clock": clock}],
        }
    )
    assert "| `lottery-ticket` | 412 | 103 | 4.00 |" in text
    assert "| `lottery-ticket`, controls | 12 | 412 | 103 | 4.00 |" in text


def test_every_running_measure_has_its_cost_in_updates():
    found = {"threads": 1, "examples": 256, "ms": {"update": 0.36, "gsnr": 38.6}, "updates": {"gsnr": 107.2}}
    text = benchmarks.watch({"machine": "m", "torch": "2", "date": "d"} | found)
    assert "| update | 0.360 |  |" in text and "| gsnr | 38.6 | 107 |" in text


def test_only_what_stands_between_the_markers_is_written_anew():
    begin, end = benchmarks.markers("fleet")
    readme = f"before\n\n{begin}\nold\n{end}\n\nafter\n"
    made = benchmarks.with_sections(readme, {"fleet": FLEET})
    assert made.startswith("before\n") and made.endswith("\nafter\n") and "old" not in made
    assert benchmarks.with_sections(made, {"fleet": FLEET}) == made
    assert benchmarks.with_sections("no markers", {"fleet": FLEET}) == "no markers"


def test_what_is_kept_is_read_by_name(tmp_path):
    (tmp_path / "fleet.json").write_text(json.dumps(FLEET), encoding="utf-8")
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    assert benchmarks.read(tmp_path) == {"fleet": FLEET}
