"""The report page: its numbers are the runs', what comes from data cannot act, and a browser shows all of it."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from chromium import Chromium
from conftest import write_clip

from dfer_zoo.__main__ import main
from dfer_zoo.data.reading import FrameFolder
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.page import by_key, extremes, origin, report, strip
from dfer_zoo.results import load_run
from dfer_zoo.runs import evaluate, write_json, write_text

HOSTILE = """<img src=x onerror=alert(1)> "q" 'a' & <script>alert(2)<'"""
"""A clip's folder; the slash of a closing tag cannot be in a name."""
SCRIPT = "</td></style></script><script>alert(3)</script>"
LR = {"m3dfel": 0.001, "hdf": 0.004}

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("no_collection")]


def write_data(root: Path) -> list[str]:
    """Write 21 clips of six frames, all for test, three of each class; return their names."""
    names = [*(f"clip {number}" for number in range(20)), HOSTILE]
    rows = []
    for number, name in enumerate(names):
        write_clip(root / name, [f"{frame}.jpg" for frame in range(6)], number % 7)
        rows.append({"path": name, "label": EMOTIONS[number % 7], "split": "test"})
    pd.DataFrame(rows).to_csv(root / "clips.csv", index=False)
    return names


def write_run(folder: Path, root: Path, names: list[str], right: int) -> Path:
    """Write a run that is right about `right` of the three clips of each class, ever surer from clip to clip."""
    label = np.arange(len(names)) % 7
    said = np.where(np.arange(len(names)) // 7 < right, label, (label + 1) % 7)
    table = pd.DataFrame(np.eye(7)[said] * np.linspace(1, 4, len(names))[:, None], columns=list(EMOTIONS))
    table.insert(0, "clip", names)
    table.insert(1, "label", label)
    write_text(folder / "evaluations" / "test-best_val.csv", table.to_csv(index=False))
    write_json(folder / "evaluations" / "test-best_val.json", evaluate(table))
    write_json(folder / "cost.json", {"parameters": 2_500_000, "gmacs_per_clip": 0.5, "device": "cpu"})
    method = folder.parent.name.partition("-")[0]
    config = {
        "seed_everything": 0,
        "method": method,
        "model": {"class_path": "dfer_zoo.models.M3DFEL", "init_args": {"lr": LR[method], "note": SCRIPT}},
        "data": {
            "class_path": "dfer_zoo.data.Clips",
            "init_args": {"root": str(root), "frames": 4, "size": 32, "workers": 0},
        },
    }
    write_json(folder / "config.yaml", config)  # json is yaml
    history = "step,epoch,train_ce,val_war,val_uar\n3,0,2.0,,\n3,0,,0.5,0.4\n7,1,1.0,,\n7,1,,0.6,0.5\n"
    write_text(folder / "metrics.csv", history)
    start = {"time": f"time of {method}", "command": SCRIPT, "versions": {"torch": "9.8.7"}}
    write_json(folder / "provenance.json", {"starts": [{"time": "earlier"}, start]})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("page")
    names = write_data(root / "data")
    return [
        write_run(root / "runs" / f"{method}-clips" / "seed0", root / "data", names, right)
        for method, right in (("m3dfel", 2), ("hdf", 1))
    ]


@pytest.fixture(scope="module")
def path(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out") / "new" / "report.html"
    assert main(["report", *map(str, runs), "--out", str(path), "--clips", "2", "--frames", "3"]) == 0
    return path


class Page(HTMLParser):
    """What a browser would make of the page: its elements, texts and tables.

    Args:
        text: the html.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.texts: list[str] = []
        self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.in_cell = True
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.in_cell &= tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.in_cell:
            self.tables[-1][-1][-1] += data.strip()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def test_tables_hold_the_runs_numbers(page: Page) -> None:
    scores, recalls, pairs, settings, started, same = page.tables
    assert [row[0] for row in scores] == ["method", "m3dfel", "hdf"]
    assert [row[1].partition(" ")[0] for row in scores] == ["WAR", "66.67", "33.33"]
    assert scores[1][scores[0].index("params M")] == "2.5"
    assert recalls[0][1:] == [f"{name} (3)" for name in EMOTIONS]
    assert recalls[2][1:] == ["33.3"] * 7
    assert pairs[1][0] == "m3dfel - hdf"
    assert settings[1:] == [["method", "m3dfel", "hdf"], ["model.init_args.lr", "0.001", "0.004"]]
    assert started[1:] == [["time", "time of m3dfel", "time of hdf"]]
    assert ["versions.torch", "9.8.7"] in same
    assert ["starts", "2"] in same


def test_what_comes_from_data_is_text(page: Page) -> None:
    """The hostile texts arrive as they were written, and not as elements."""
    assert page.all("script") == []
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert any(HOSTILE in text for text in page.texts)
    assert f"3 frames of clip {HOSTILE} in their order" in [image["alt"] for image in page.all("img")]
    assert ["command", SCRIPT] in page.tables[-1]


def test_the_page_stands_alone_and_can_be_read_aloud(page: Page) -> None:
    images = page.all("img")
    assert len(images) == 3 + 1 + 2 * 4  # comparison, training, clips
    assert all(re.match("data:image/(png|jpeg);base64,", image["src"]) for image in images)
    assert all(len(image["alt"]) > 20 for image in images)
    assert page.all("link") == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [link["href"] for link in page.all("a")]
    assert len(links) == 6
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert all(head["scope"] in ("row", "col") for head in page.all("th"))
    assert {table["aria-labelledby"] for table in page.all("table")} <= set(ids)


def test_a_browser_shows_every_image_and_asks_for_nothing_else(path: Path, browser: Chromium) -> None:
    for width in (1200, 400):
        browser.width(width)
        events = browser.open(path)
        talk = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening")
        assert [event for event in events if event.get("method") in talk] == []
        requests = [e["params"]["request"]["url"] for e in events if e.get("method") == "Network.requestWillBeSent"]
        assert [url for url in requests if not url.startswith("data:image/")] == [path.as_uri()]
        widths = browser.ask("Array.from(document.images, image => image.naturalWidth)")
        assert len(widths) == 12
        assert min(widths) > 0
        assert browser.ask("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"


def test_the_browser_would_notice(path: Path, browser: Chromium, tmp_path: Path) -> None:
    """A page with a broken picture, a script and a foreign address does not pass the test above."""
    text = path.read_text(encoding="utf-8")
    broken = '<img src="data:image/png;base64,AAAA"><img src="file:///foreign.png"><script>alert(1)</script>'
    (tmp_path / "broken.html").write_text(text.replace("<main>", f"<main>{broken}"), encoding="utf-8")
    events = browser.open(tmp_path / "broken.html")
    refused = [event["params"]["entry"]["text"] for event in events if event.get("method") == "Log.entryAdded"]
    assert any("inline script" in text for text in refused), "the page's own rules forbid scripts"
    assert any("foreign.png" in text for text in refused)
    assert browser.ask("document.images[0].naturalWidth") == 0


def shown(source: str) -> np.ndarray:
    """Return the picture in a data URI, ``(H, W, 3)`` RGB."""
    content = np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_worst_and_best_clips_are_those_of_the_predictions(runs: list[Path]) -> None:
    section = extremes(load_run(runs[0]), "m3dfel", "id", 2, 3)
    worst, best = section.clips.values()
    # two thirds are right, ever surer; the last third is wrong, ever surer
    assert [picture.caption.partition(":")[0] for picture in worst] == [HOSTILE, "clip 19"]
    assert [picture.caption.partition(":")[0] for picture in best] == ["clip 13", "clip 12"]
    assert worst[0].caption == f"{HOSTILE}: Fear; model says Happy (90 %), Fear 2 %"
    assert [picture.right for picture in (*worst, *best)] == [False, False, True, True]
    picture = shown(worst[0].source)
    assert picture.shape == (32, 96, 3)
    # the fixture writes the class into the red and the frame into the green channel
    assert abs(picture[..., 0].mean() - (30 * 6 + 20)) < 4
    greens = [picture[:, 32 * i : 32 * (i + 1), 1].mean() for i in range(3)]
    assert greens == sorted(greens)
    assert greens[2] - greens[0] > 20


def test_few_clips_are_shown_once(runs: list[Path]) -> None:
    worst, best = extremes(load_run(runs[0]), "m3dfel", "id", 50, 1).clips.values()
    names = [picture.alternative for picture in (*worst, *best)]
    assert len(names) == len(set(names)) == 20


@pytest.mark.parametrize(("shape", "expected"), [((5, 224, 224), (96, 192)), ((1, 48, 40), (48, 80))])
def test_thumbnails_are_small_and_never_enlarged(shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    picture = cv2.imdecode(np.frombuffer(strip(np.zeros((*shape, 3), np.uint8), 2), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[:2] == expected


def test_what_is_missing_is_said_on_the_page(runs: list[Path], tmp_path: Path) -> None:
    copy = shutil.copytree(runs[0], tmp_path / "m3dfel-clips" / "seed0")
    for name in ("metrics.csv", "provenance.json"):
        (copy / name).unlink()
    config = json.loads((copy / "config.yaml").read_text())
    config["data"]["init_args"]["root"] = str(tmp_path / "gone")
    write_json(copy / "config.yaml", config)
    report([copy], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    text = " ".join(page.texts)
    for expected in ("has no metrics.csv", "has no provenance.json", "No clips can be shown"):
        assert expected in text
    assert len(page.tables) == 2
    assert "Settings" not in text


def test_a_clip_that_cannot_be_read_any_more_is_said_on_the_page(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise DataError("The frame x is not a readable image.")

    monkeypatch.setattr(FrameFolder, "read", damaged)
    report(runs[:1], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "No clips can be shown. The frame x is not a readable image." in " ".join(page.texts)


def test_runs_with_folders_of_one_name_are_told_apart(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfer_zoo.figures.draw_comparison", lambda *_: [])
    copy = shutil.copytree(runs[0], tmp_path / runs[0].parent.name / runs[0].name)
    config = json.loads((copy / "config.yaml").read_text())
    config["model"]["init_args"]["lr"] = 0.1
    write_json(copy / "config.yaml", config)
    report([runs[0], copy], tmp_path / "report.html", clips=0)
    settings = Page((tmp_path / "report.html").read_text(encoding="utf-8")).tables[3]
    assert settings == [["key", str(runs[0]), str(copy)], ["model.init_args.lr", "0.001", "0.1"]]


def test_bad_words_are_refused(runs: list[Path], tmp_path: Path) -> None:
    for words, expected in (
        (([],), "No runs given"),
        ((runs, tmp_path / "report.pdf"), r"ends with \.html"),
        ((runs, tmp_path / "r.html", -1), "clips is -1"),
        ((runs, tmp_path / "r.html", 1, 0), "frames 0"),
        (([tmp_path],), "no run folder"),
    ):
        with pytest.raises(InputError, match=expected):
            report(*words)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"could not be written.*--out"):
        report(runs, tmp_path / "file" / "report.html", clips=0)


@pytest.mark.parametrize("content", ["{", "[]", '{"starts": []}', '{"starts": 3}'])
def test_a_damaged_provenance_is_named(runs: list[Path], tmp_path: Path, content: str) -> None:
    copy = shutil.copytree(runs[0], tmp_path / "m3dfel-clips" / "seed0")
    (copy / "provenance.json").write_text(content)
    with pytest.raises(DataError, match=r"provenance\.json is damaged.*Delete it"):
        origin({"m3dfel": load_run(copy)})


def test_settings_stand_side_by_side() -> None:
    table = by_key({"a": {"x": 1, "deep": {"er": [1, 2], "no": None}}, "b": {"x": "1", "é": True}})
    assert table.to_numpy().tolist() == [
        ["x", "1", "1"],
        ["deep.er", "[1, 2]", "-"],
        ["deep.no", "-", "-"],
        ["é", "-", "true"],
    ]
