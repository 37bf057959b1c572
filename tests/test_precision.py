"""bf16 where the machine computes it and its gradients are right; float32 everywhere else."""

import pytest
import torch

from dfer_zoo import precision
from dfer_zoo.precision import choose_precision, least_cosine


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def capabilities(**present: bool):
    return lambda: present


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16"])
def test_bf16_in_hardware_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", capabilities(avx2=True, **{name: True}), raising=False)
    assert choose_precision() == "bf16-mixed"


def test_emulated_bf16_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", capabilities(avx2=True, avx512_bf16=False), raising=False)
    assert choose_precision() == "32-true"


def test_torch_that_knows_no_capabilities_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision() == "32-true"


@pytest.mark.parametrize("cosine", [0.99, -1.0])
def test_wrong_gradients_get_float32(cosine: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", capabilities(avx512_bf16=True), raising=False)
    monkeypatch.setattr(precision, "least_cosine", lambda device: cosine)
    assert choose_precision("cpu") == "32-true"


def test_a_gpu_is_asked_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    monkeypatch.setattr(precision, "least_cosine", lambda device: asked.append(device) or 1.0)
    assert choose_precision("auto") == choose_precision("gpu") == "bf16-mixed"
    assert asked == ["cuda", "cuda"]


def test_gradients_are_right_here_and_random_numbers_untouched() -> None:
    state = torch.get_rng_state()
    assert least_cosine("cpu") > 0.999
    assert torch.equal(torch.get_rng_state(), state)


def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(torch.nn.Conv3d):
        def forward(self, x):
            y = super().forward(x)
            return y if x.dtype == torch.float32 or x.shape[2] != 2 else y + 0 * y.detach() - 2 * (y - y.detach())

    monkeypatch.setattr(precision, "use_clip_convolutions", lambda net: setattr(net, "__class__", Wrong))
    assert least_cosine("cpu") < 0.9
