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
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook.cells)


def test_every_table_and_picture_is_explained(notebook: nbformat.NotebookNode) -> None:
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds == ["markdown", "code"] * (len(kinds) // 2)


def test_it_shows_every_method_pair_and_picture(notebook: nbformat.NotebookNode, tmp_path: Path) -> None:
    for method, right in (("first", 1.0), ("second", 0.25)):
        run = write_run(tmp_path / "demo" / "runs", method, right=right)
        (run / "metrics.csv").write_text(
            "step,epoch,train_ce,val_war,val_uar,lr-AdamW\n0,0,1.5,,,0.1\n1,0,1.2,0.5,0.5,0.1\n"
        )
    write_run(tmp_path / "demo" / "runs", "second", right=0.25, version="-2")
    part = write_run(tmp_path / "demo" / "runs", "third", rules=())  # such as with limit_test_batches
    (tmp_path / "notebooks").mkdir()
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    scores, pairs = (output["data"]["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {}))
    assert "| first " in scores
    assert "100.00 [" in scores
    assert "| second " in scores
    assert "| first - second |" in pairs
    assert "first better on these trainings" in pairs
    printed = "".join(output.get("text", "") for output in outputs)
    assert "first, second: seed 0 lacks fold 2, 3, 4, 5" in printed
    assert f"{part.relative_to(tmp_path / 'demo' / 'runs')} has no test-best_val.json" in printed
    assert "second-dfew/fold1-seed0 is left out" in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
