"""What the model cards and README state is what the files and the code say."""

import inspect
import re
from contextlib import nullcontext
from pathlib import Path
from pkgutil import resolve_name

import pandas as pd
import pytest
import torch
import yaml

from dfer_zoo import models
from dfer_zoo.models import DFERModel
from dfer_zoo.profile import count_macs
from dfer_zoo.published import read_published
from dfer_zoo.recipes import Recipe, read_recipes

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
CARDS = {path.stem: path for path in sorted((EXPERIMENTS / "model").glob("*.md"))}
QUICK = EXPERIMENTS / "quick" / "README.md"
PAGES = [ROOT / "README.md", QUICK, *CARDS.values()]
MODELS = sorted(path.stem for path in (EXPERIMENTS / "model").glob("*.yaml"))
TABLES = ["Recipe", "Cost", "Printed numbers", "Options for ablations", "Departures"]


def read_table(page: Path, heading: str) -> list[dict[str, str]]:
    """Return the rows of the first table under a heading, by the names of its columns."""
    section = page.read_text(encoding="utf-8").partition(f"# {heading}\n")[2].partition("\n## ")[0]
    block = re.search(r"^\|.*(?:\n\|.*)*", section, re.MULTILINE)
    assert block, f"{page} has no table under {heading!r}"
    names, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.group().splitlines()]
    assert all(len(row) == len(set(names)) for row in rows), f"{page}, {heading}: the columns do not fit"
    return [dict(zip(names, row, strict=True)) for row in rows]


def linked_columns(table: list[dict[str, str]]) -> dict[str, str]:
    """Return the columns whose header is a link to a yaml, by the yaml's name."""
    headers = {re.match(r"\[(\w+)\]\([./]*(\w+)\.yaml\)$", header): header for header in table[0]}
    return {link.group(2): header for link, header in headers.items() if link and link.group(1) == link.group(2)}


def stated(table: list[dict[str, str]], column: str) -> dict[str, object]:
    """Return the options of a column of a recipe, those with a dash left out."""
    return {row[""]: yaml.safe_load(row[column]) for row in table if row[column] != "-"}


def options(path: Path) -> dict[str, object]:
    """Return the options of a recipe's yaml, whatever part of the training they belong to."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    model, data = (content.get(part, {}).get("init_args", {}) for part in ("model", "data"))
    return {**content.get("trainer", {}), **model, **data}


def card_of(model: str) -> Path:
    """Return the card that has a column for a model's recipe."""
    found = [card for card in CARDS.values() if model in linked_columns(read_table(card, "Recipe"))]
    assert len(found) == 1, (
        f"experiments/model/{model}.yaml has a column in the recipe of {len(found)} cards, not of one: write "
        f"experiments/model/{model}.md like the others, or add it to baselines.md"
    )
    return found[0]


def model_class(recipe: Recipe) -> type[DFERModel]:
    return getattr(models, recipe.config["model"]["class_path"].rpartition(".")[2])


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_one_card_with_its_recipe(model: str) -> None:
    recipe = read_table(card_of(model), "Recipe")
    assert stated(recipe, linked_columns(recipe)[model]) == options(EXPERIMENTS / "model" / f"{model}.yaml")


@pytest.mark.parametrize("name", CARDS)
def test_a_card_has_every_section(name: str) -> None:
    headings = re.findall(r"^## (.*)", CARDS[name].read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [*TABLES[:2], "What we found", *TABLES[2:]]
    assert all(read_table(CARDS[name], heading) for heading in TABLES)
    assert set(linked_columns(read_table(CARDS[name], "Recipe"))) <= set(MODELS)


def test_the_quick_recipe_is_stated() -> None:
    files = {path.stem: path for path in [EXPERIMENTS / "quick.yaml", *(EXPERIMENTS / "quick").glob("*.yaml")]}
    table = read_table(QUICK, "The quick recipe")
    columns = linked_columns(table)
    assert columns.keys() == files.keys()
    for name, path in files.items():
        assert stated(table, columns[name]) == options(path)


def cost(recipe: Recipe) -> tuple[int, float, int]:
    """Count a model's parameters, GMACs and features without computing anything."""
    with torch.device("meta"):
        model = recipe.model().to("meta")
    gmacs = count_macs(model, *recipe.shape) / 1e9
    return sum(parameter.numel() for parameter in model.net.parameters()), gmacs, model.net.fc.in_features


@pytest.mark.parametrize("model", MODELS)
def test_cost_is_what_the_code_counts(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    card = card_of(model)
    (row,) = [row for row in read_table(card, "Cost") if row[""] == model]
    numbers = {name: float(cell.replace(" ", "")) for name, cell in row.items() if name}
    paper, quick = (read_recipes(EXPERIMENTS, [model], "dfew", quick)[0] for quick in (False, True))
    parameters, gmacs, features = cost(paper)
    quick_parameters, quick_gmacs, _ = cost(quick)
    assert numbers == {
        "parameters": parameters,
        "GMACs a clip": float(f"{gmacs:.3g}"),
        "quick: parameters": quick_parameters,
        "quick: GMACs a clip": float(f"{quick_gmacs:.3g}"),
    }
    assert f"(B, {features})" in card.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return pd.concat([read_published("DFEW"), read_published("FERV39k")])


@pytest.mark.parametrize("name", CARDS)
def test_printed_numbers_are_the_published_ones(name: str, published: pd.DataFrame) -> None:
    by_name = published.set_index(["method", "dataset", "setting"], verify_integrity=True).sort_index()
    for row in read_table(CARDS[name], "Printed numbers"):
        found = by_name.loc[(row["row"], row["data"], row["setting"])]
        assert (row["WAR"], row["UAR"], row["GFLOPs"]) == (found["WAR"], found["UAR"], found["FLOPs_G"]), row
        recomputed = f"{found['war_recomputed']:.2f} / {found['uar_recomputed']:.2f}"
        assert row["recalls give"] == {"not": recomputed, "consistent": "consistent", "": ""}[found["audit"]], row


def test_no_printed_row_of_the_three_papers_is_left_out(published: pd.DataFrame) -> None:
    for method in ("M3DFEL", "MICACL", "HDF"):
        settings = published.loc[published["method"] == method, ["dataset", "setting"]]
        rows = [row for row in read_table(CARDS[method.lower()], "Printed numbers") if row["row"] == method]
        assert sorted((row["data"], row["setting"]) for row in rows) == sorted(settings.itertuples(index=False))


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_options_of_an_ablation_stand_beside_its_name(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    table = read_table(card_of(content["model"]), "Options for ablations")
    used = {option.removeprefix("model.") for row in content["rows"] for option in row["options"]}
    assert used <= {row["option"].strip("`") for row in table}
    assert any(f"../ablations/{path.name}" in row["table"] for row in table)


@pytest.mark.parametrize("model", MODELS)
def test_options_are_the_models(model: str) -> None:
    (recipe,) = read_recipes(EXPERIMENTS, [model], "dfew")
    known = inspect.signature(model_class(recipe)).parameters.keys() | inspect.signature(DFERModel).parameters.keys()
    table = read_table(card_of(model), "Options for ablations")
    assert {row["option"].strip("`") for row in table} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_objects_named_in_a_page_exist(page: Path) -> None:
    for name in set(re.findall(r"`(dfer_zoo(?:\.\w+)+)`", page.read_text(encoding="utf-8"))):
        resolve_name(name)


def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target) if target else page
        assert path.exists(), f"{page} links to {link}"
        assert not anchor or path.suffix != ".md" or anchor in anchors(path), f"{page} links to {link}"
