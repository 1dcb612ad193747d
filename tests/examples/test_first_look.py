"""The notebook is kept without outputs, and runs from top to bottom as it stands."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_look.ipynb"


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_outputs():
    code = [cell for cell in read().cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    nbformat.validate(read())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Jupyter's own
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_it_runs_from_top_to_bottom_and_shows_the_run_the_figures_and_the_tables(monkeypatch, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read()
    client = nbclient.NotebookClient(notebook, kernel_name="python3", timeout=240)
    client.execute(cwd=str(tmp_path))  # an error in a cell is raised
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    data = [output.get("data", {}) for output in outputs]
    assert sum("application/vnd.plotly.v1+json" in each for each in data) == 2
    pages = [each["text/html"] for each in data if "text/html" in each]
    assert "<svg" in pages[0] and "changed S" in pages[0]  # the run, as it shows itself
    assert any("settled" in page and "conv3" in page for page in pages[1:])
    assert any("random_mean" in page for page in pages)
    assert "of the held-out digits right" in outputs[0].text
    assert list(tmp_path.rglob("report/index.html"))
