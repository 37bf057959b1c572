"""The notebook runs top to bottom on finished runs, and holds no outputs in git."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from test_results import write_run

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "compare.ipynb"


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_outputs_are_stripped(notebook: nbformat.NotebookNode) -> None:
    assert all(not cell.get("outputs") for cell in notebook.cells)


def test_it_shows_every_run(notebook: nbformat.NotebookNode, tmp_path: Path) -> None:
    for method in ("first", "second"):
        write_run(tmp_path / "runs" / f"{method}-dfew" / "fold1-seed0")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    table = outputs[0]["data"]["text/plain"]
    assert "first-dfew/fold1-seed0" in table
    assert "second-dfew/fold1-seed0" in table
    assert sum("image/png" in output["data"] for output in outputs) == 2
