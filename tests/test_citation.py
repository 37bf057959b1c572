"""CITATION.cff says what pyproject.toml says."""

import re
from pathlib import Path

import yaml

CHECKOUT = Path(__file__).parents[1]


def stated(key: str) -> str:
    """Return a value of pyproject's first table that holds it, read without tomllib, which Python 3.10 lacks."""
    return re.search(rf'^{key} = "(.*)"$', (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]


def test_the_citation_agrees_with_the_package() -> None:
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["message"]
    assert citation["authors"] == [{"name": "The dfer-zoo authors"}]
    for key, value in {"title": "name", "version": "version", "license": "license", "abstract": "description"}.items():
        assert citation[key] == stated(value)


def test_the_papers_of_methods_and_datasets_are_cited() -> None:
    references = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    assert [reference["notes"] for reference in references] == ["M3DFEL", "MICACL", "HDF", "DFEW", "FERV39k"]
    for reference in references:
        assert reference["title"]
        assert reference["type"] == "conference-paper"
        assert all(author["family-names"] and author["given-names"] for author in reference["authors"])
