"""SAM against two hand-written passes, and as AdamW where it must be AdamW."""

import copy

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dfer_zoo.errors import InputError
from dfer_zoo.optim import SAM

ADAMW = {"lr": 0.01, "weight_decay": 0.05}


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()


def make_batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(count, 6, 4, generator=generator, dtype=torch.float64)
    return list(zip(clips, torch.randint(0, 3, (count, 6), generator=generator), strict=True))


def closure_of(net: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]):
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(batch[0]), batch[1])
        loss.backward()
        return loss

    return closure


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 4) -> list[Tensor]:
    return [optimizer.step(closure_of(net, optimizer, batch)).detach() for batch in make_batches(steps)]


def test_sam_is_two_hand_written_passes() -> None:
    ours = make_net()
    returned = train(ours, SAM(ours.parameters(), rho=0.05, net=ours, **ADAMW))

    net = make_net()
    adamw = torch.optim.AdamW(net.parameters(), **ADAMW)
    for batch, loss in zip(make_batches(4), returned, strict=True):
        first = closure_of(net, adamw, batch)()
        torch.testing.assert_close(loss, first)
        norm = sum(p.grad.square().sum() for p in net.parameters()).sqrt()
        climbed = copy.deepcopy(net)
        with torch.no_grad():
            for p, q in zip(net.parameters(), climbed.parameters(), strict=True):
                q += 0.05 * p.grad / norm
        closure_of(climbed, adamw, batch)()
        for p, q in zip(net.parameters(), climbed.parameters(), strict=True):
            p.grad = q.grad
        adamw.step()
    torch.testing.assert_close(ours.state_dict(), net.state_dict(), rtol=0, atol=1e-9)


def test_without_radius_it_is_adamw_bit_for_bit_in_one_pass() -> None:
    ours, plain = make_net(), make_net()
    train(ours, sam := SAM(ours.parameters(), rho=0, net=ours, **ADAMW))
    train(plain, torch.optim.AdamW(plain.parameters(), **ADAMW))
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), plain.state_dict().values(), strict=True))
    assert ours[1].num_batches_tracked == 4
    assert sam.grad_norm is None


def test_first_pass_sets_the_gradient_norm_and_the_statistics() -> None:
    net = make_net()
    optimizer = SAM(net.parameters(), rho=0.5, net=net, **ADAMW)
    batch = make_batches(1)[0]
    seen = []
    inner = closure_of(net, optimizer, batch)

    def closure() -> Tensor:
        loss = inner()
        norm = torch.cat([p.grad.flatten() for p in net.parameters()]).norm()
        seen.append((optimizer.in_second_pass, norm, copy.deepcopy(list(net.buffers()))))
        return loss

    optimizer.step(closure)
    assert [second for second, *_ in seen] == [False, True]
    torch.testing.assert_close(optimizer.grad_norm, seen[0][1])
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), seen[0][2], strict=True))
    assert not torch.equal(seen[0][2][0], seen[1][2][0])  # the second pass did touch them
    assert not optimizer.in_second_pass


def test_weights_and_statistics_return_when_the_second_pass_fails() -> None:
    net = make_net()
    optimizer = SAM(net.parameters(), rho=0.5, net=net, **ADAMW)
    before = copy.deepcopy(list(net.parameters()))
    inner = closure_of(net, optimizer, make_batches(1)[0])

    def closure() -> Tensor:
        if optimizer.in_second_pass:
            raise KeyboardInterrupt
        return inner()

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))
    assert not optimizer.in_second_pass


def test_parameters_without_gradient_and_zero_gradients_are_left_alone() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = SAM([used, unused], rho=0.05, lr=0.1, weight_decay=0.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (0 * used).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert used.tolist() == unused.tolist() == [1, 1]


def test_missing_closure_and_negative_radius_are_refused() -> None:
    net = make_net()
    with pytest.raises(InputError, match="closure"):
        SAM(net.parameters(), **ADAMW).step()
    with pytest.raises(InputError, match="-1"):
        SAM(net.parameters(), rho=-1, **ADAMW)


def test_state_survives_saving_and_the_schedule_is_followed() -> None:
    nets = [make_net(), make_net()]
    for resumed, net in zip((False, True), nets, strict=True):
        optimizer = SAM(net.parameters(), net=net, **ADAMW)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        for i, batch in enumerate(make_batches(4)):
            if resumed and i == 2:
                state = optimizer.state_dict(), schedule.state_dict()
                optimizer = SAM(net.parameters(), net=net, **ADAMW)
                schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
                optimizer.load_state_dict(state[0])
                schedule.load_state_dict(state[1])
            optimizer.step(closure_of(net, optimizer, batch))
            schedule.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 16)
    torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), rtol=0, atol=0)


class Lightning(L.LightningModule):
    """A net under Lightning's automatic optimisation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_net().float()

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return SAM(self.net.parameters(), net=self.net, **ADAMW)


def fit(module: L.LightningModule, tmp_path, **trainer) -> None:
    x, y = (torch.cat(parts) for parts in zip(*make_batches(4), strict=True))
    loader = DataLoader(TensorDataset(x.float(), y), batch_size=6)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "barebones": False}
    L.Trainer(
        max_epochs=1, accelerator="cpu", enable_model_summary=False, default_root_dir=tmp_path, **quiet, **trainer
    ).fit(module, loader)


@pytest.mark.filterwarnings("ignore")
def test_lightning_runs_it_as_a_hand_written_loop_does(tmp_path) -> None:
    module = Lightning()
    fit(module, tmp_path)
    net = make_net().float()
    optimizer = SAM(net.parameters(), net=net, **ADAMW)
    for x, y in make_batches(4):
        optimizer.step(closure_of(net, optimizer, (x.float(), y)))
    torch.testing.assert_close(module.net.state_dict(), net.state_dict(), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_lightning_runs_it_in_bf16(tmp_path) -> None:
    module = Lightning()
    fit(module, tmp_path, precision="bf16-mixed")
    assert all(p.isfinite().all() for p in module.parameters())
    assert not torch.equal(module.net[0].weight, make_net().float()[0].weight)
