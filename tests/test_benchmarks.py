"""The benchmarks compare like with like."""

import numpy as np
import pytest
import torch
from benchmarks import alternate, data_path, print_ratios


def test_the_data_path_s_variants_read_the_same_clips(tmp_path, monkeypatch):
    for name, value in (("CLIPS", 3), ("STORED", 20), ("FRAMES", 4)):
        monkeypatch.setattr(data_path, name, value)
    read = {name: run().numpy().astype(float) for name, run in data_path.variants(tmp_path).items()}
    assert read.pop("packed pixels, drawn for the device").shape == (2, 3, 4, 128, 128)
    plain = 255 * read.pop("PIL, torchvision")
    assert plain.shape == (2, 3, 4, 112, 112)
    resized_twice = 5  # levels of 255: the noise in these frames is finer than what a packed store keeps
    assert np.abs(read["raw, exact colours"] - plain).mean() < 2  # PIL turns hue in 8 bits
    assert np.abs(read["packed pixels, exact colours"] - plain).mean() < resized_twice
    assert (read["packed jpeg, affine colours"] == read["raw, affine colours"]).all()
    assert np.abs(read["packed pixels, affine colours"] - read["raw, affine colours"]).mean() < resized_twice
    assert np.corrcoef(read["raw, affine colours"].ravel(), plain.ravel())[0, 1] > 0.95


def test_alternate_runs_the_variants_in_turns(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("benchmarks.time.perf_counter", lambda: next(clock))
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        next(clock)

    seconds = alternate({"fast": lambda: order.append("fast"), "slow": slow}, rounds=3)
    assert order == ["fast", "slow"] * 4
    assert seconds == pytest.approx({"fast": 1, "slow": 2})


def test_a_table_says_what_was_measured(capsys, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    print_ratios("Steps", {"plain": 0.5, "ours": 0.25}, "plain", 2, "clips")
    printed = capsys.readouterr().out
    assert "Steps; wall time, 3 threads" in printed
    assert "2.00" in printed
