"""Mixed precision, clipping, gradient checkpointing, accumulation, averaged copies: torch's own tools around a step."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from dropattack import FGM, PGD, SAM, DropAttack, FreeLB

METHODS = {
    "fgm": lambda m: FGM(m, "hidden.weight", epsilon=3.0),
    "pgd": lambda m: PGD(m, "hidden.weight", epsilon=3.0, alpha=2.0, steps=2),
    "sam": lambda m: SAM(m, "hidden.weight", rho=3.0),
    "dropattack": lambda m: DropAttack(m, ["hidden", "hidden.weight"], epsilon=3.0, steps=2, seed=0),
    "freelb": lambda m: FreeLB(m, "hidden", alpha=1.0, seed=0),
}
each_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())


class Net(nn.Module):
    def __init__(self, checkpointed: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(12, 5)
        self.hidden = nn.Linear(5, 16)
        self.head = nn.Linear(16, 3)
        self.checkpointed = checkpointed

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.hidden(x)))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids).mean(1)
        if self.checkpointed:
            return checkpoint(self.body, x, use_reentrant=self.checkpointed == "reentrant")
        return self.body(x)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(12, (8, 4), generator=generator), torch.randint(3, (8,), generator=generator)


def gradient(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@each_method
def test_an_autocast_around_the_whole_step_attacks_too(make):
    """Autocast keeps casts of weights until its end: an attack in between would not be seen."""
    ids, labels = batch()
    inner, outer = Net(), Net()

    def forward():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.cross_entropy(inner(ids), labels)

    wanted = make(inner).backward(forward)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outer(ids)  # fills the cache before the step
        found = make(outer).backward(lambda: F.cross_entropy(outer(ids), labels))
        after = outer(ids)
    assert found.adversarial == wanted.adversarial
    assert found.adversarial[-1] != found.clean
    assert torch.equal(gradient(inner), gradient(outer))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(after, outer(ids)), "no cast of an attacked weight is left behind"


@each_method
@pytest.mark.parametrize("kind", ["reentrant", "not reentrant"])
def test_gradient_checkpointing_changes_nothing(make, kind):
    ids, labels = batch()
    plain, checkpointed = Net(), Net(kind)
    for model in (plain, checkpointed):
        make(model).backward(lambda model=model: F.cross_entropy(model(ids), labels))
    assert torch.equal(gradient(plain), gradient(checkpointed))


def test_a_module_called_twice_is_still_an_error():
    ids, labels = batch()
    model = Net()
    reg = FGM(model, "hidden")
    with pytest.raises(RuntimeError, match="called twice"):
        reg.backward(lambda: F.cross_entropy(model(ids) + model(ids), labels))


@each_method
def test_a_scaler_unscales_once_clips_and_skips_overflow(make):
    ids, labels = batch()
    model, exact = Net(), Net()
    make(exact).backward(lambda: F.cross_entropy(exact(ids), labels))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    reg = make(model)

    def forward():
        with torch.autocast("cpu", dtype=torch.float16):
            return F.cross_entropy(model(ids), labels)

    def step() -> torch.Tensor:
        reg.backward(forward, backward=lambda loss: scaler.scale(loss).backward())
        scaler.unscale_(optimizer)
        found = gradient(model).clone()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        assert not norm.isfinite() or gradient(model).norm() <= 0.01 * 1.001
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return found

    before = {n: p.clone() for n, p in model.named_parameters()}
    assert not step().isfinite().all()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters()), "the scaler skips the step"
    assert reg.skipped > 0
    scaler.update(2.0**10)
    reg = make(model)
    assert torch.cosine_similarity(step(), gradient(exact), dim=0) > 0.99
    assert reg.skipped == 0
    assert not torch.equal(model.hidden.weight, before["hidden.weight"])


@each_method
def test_a_model_in_eval_mode_gets_the_same_gradient(make):
    ids, labels = batch()
    training, evaluating = Net().train(), Net().eval()
    for model in (training, evaluating):
        make(model).backward(lambda model=model: F.cross_entropy(model(ids), labels))
    assert torch.equal(gradient(training), gradient(evaluating))
    assert not evaluating.training


@each_method
def test_an_averaged_copy_is_nobodys_target(make):
    ids, labels = batch()
    model = Net()
    reg = make(model)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    reg.backward(lambda: F.cross_entropy(model(ids), labels))
    average.update_parameters(model)
    assert all(torch.equal(a, b) for a, b in zip(average.module.parameters(), model.parameters(), strict=True))
    assert all(p.grad is None for p in average.parameters())
    assert torch.equal(average(ids), model(ids))
