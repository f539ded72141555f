"""Lazy Adam against its definition, written out row by row; and in the loop: clipping, accumulation, skips, resume."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import toy_train

from dropattack.errors import UserError
from dropattack.regularizers import DropAttack, FreeLB, Identity
from dropattack.regularizers.rows import Rows
from dropattack.runs import experiment
from dropattack.runs.checks import check
from dropattack.runs.config import compose
from dropattack.training import optim
from dropattack.training.checkpoint import Checkpoints, Snapshot
from dropattack.training.device import make_accelerator
from dropattack.training.lazy import LazyAdam, use_row_gradients
from dropattack.training.step import Output, Stepper
from tests.regularizers.methods import METHODS

WORDS, SIZE, CLASSES = 12, 4, 3
RATE, BETA1, BETA2, EPS = 0.1, 0.9, 0.999, 1e-8


class Bag(nn.Module):
    def __init__(self, padding: int | None = 0):
        super().__init__()
        self.embed = nn.Embedding(WORDS, SIZE, padding_idx=padding)
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(SIZE, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.drop(self.embed(ids)).mean(1).tanh())


def bags(count: int, words: int = WORDS, rows: int = 4) -> list[dict[str, Tensor]]:
    """Batches with words that repeat, padding, and few of the vocabulary's words in each."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for n in range(count):
        ids = torch.randint(1, words, (rows, 3), generator=generator) if words < WORDS or n % 2 else torch.tensor(
            [[1, 1, 2], [2, 0, 0], [1, 5, 0], [7, 2, 1]]
        )  # fmt: skip
        made.append({"ids": ids, "labels": torch.randint(CLASSES, (len(ids),), generator=generator)})
    return made


def stepper(model: nn.Module, optimizer: str = "lazy_adam", reg=Identity, **options) -> Stepper:
    return Stepper(
        model.train(), reg(model), make_accelerator(device="cpu"), optimizer=optimizer, learning_rate=RATE, **options
    )


def oracle(w: Tensor, steps: list[tuple[Tensor, set[int]]], decay: float = 0.0) -> Tensor:
    """The rule of `LazyAdam`, in Python's floats; `steps` are dense gradients and the rows that were looked up."""
    rows, size = w.shape
    w = [[float(x) for x in row] for row in w]
    m, v = ([[0.0] * size for _ in range(rows)] for _ in range(2))
    for t, (gradient, looked_up) in enumerate(steps, 1):
        for i in looked_up:
            for j in range(size):
                g = float(gradient[i, j]) + decay * w[i][j]
                m[i][j] = BETA1 * m[i][j] + (1 - BETA1) * g
                v[i][j] = BETA2 * v[i][j] + (1 - BETA2) * g * g
                w[i][j] -= RATE * (m[i][j] / (1 - BETA1**t)) / (math.sqrt(v[i][j] / (1 - BETA2**t)) + EPS)
    return torch.tensor(w, dtype=torch.float64)


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("unknown", [False, True], ids=["cpu", "as on a gpu"])
def test_against_the_rule_row_by_row(decay, unknown, monkeypatch):
    if unknown:
        monkeypatch.setattr(Rows, "of", Rows.without_waiting)
    torch.manual_seed(0)
    model = Bag().double()
    use_row_gradients(model)
    optimizer = LazyAdam(model.parameters(), RATE, weight_decay=decay)
    start, steps = model.embed.weight.detach().clone(), []
    for batch in bags(7):
        F.cross_entropy(model.eval()(batch["ids"]), batch["labels"]).backward()
        steps.append((model.embed.weight.grad.to_dense(), set(batch["ids"].unique().tolist()) - {0}))
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(model.embed.weight.detach(), oracle(start, steps, decay), rtol=1e-9, atol=1e-12)
    untouched = sorted(set(range(WORDS)) - set().union(*(seen for _, seen in steps)))
    assert 0 in untouched
    assert torch.equal(model.embed.weight[untouched], start[untouched])


def test_it_is_adam_where_every_row_is_looked_up():
    def trained(optimizer: str) -> nn.Module:
        torch.manual_seed(0)
        model = Bag(padding=None).double()
        steps = stepper(model, optimizer)
        ids = torch.arange(WORDS).view(4, 3)
        for n in range(6):
            steps.step([{"ids": ids.roll(n, 1), "labels": torch.tensor([0, 1, 2, n % 3])}], RATE)
        return model

    for one, other in zip(trained("adam").parameters(), trained("lazy_adam").parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_method_gives_it_the_gradient_that_adam_gets(method):
    """Two micro-batches, in which the same words come again."""

    def gradient(sparse: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = Bag().double().train()
        if sparse:
            assert use_row_gradients(model) == ["embed.weight"]
        reg = method.make(model, ["embed.weight", "head.weight"], ["embed"])
        torch.manual_seed(1)
        for batch in bags(2):

            def forward(batch=batch):
                logits = model(batch["ids"])
                return Output(F.cross_entropy(logits, batch["labels"]), logits)

            reg.backward(forward, backward=lambda loss: (loss / 2).backward())
        assert model.embed.weight.grad.is_sparse == sparse
        return {name: p.grad.to_dense() if p.grad.is_sparse else p.grad for name, p in model.named_parameters()}

    dense, sparse = gradient(False), gradient(True)
    for name in dense:
        torch.testing.assert_close(sparse[name], dense[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("sparse", [False, True])
def test_clipping_bounds_the_norm_of_the_whole_gradient(accumulation, sparse, monkeypatch):
    torch.manual_seed(0)
    model = Bag().double().eval()
    if sparse:
        use_row_gradients(model)
    optimizer, seen = LazyAdam(model.parameters(), RATE), []

    def look() -> None:
        grads = [g.grad for g in optimizer._gathered] + [p.grad for p in model.parameters() if p.grad is not None]
        assert len(grads) == 3
        seen.append(float(torch.stack([g.norm() for g in grads]).norm()))

    monkeypatch.setattr(optimizer, "step", look)
    for batch in bags(accumulation):
        F.cross_entropy(model(batch["ids"]), batch["labels"]).backward()
    optim.guarded_step(optimizer, clip_norm=1e-2)
    assert seen == [pytest.approx(1e-2, rel=1e-3)]


@pytest.mark.parametrize("first", [True, False])
def test_a_gradient_that_is_not_finite_changes_nothing(first):
    torch.manual_seed(0)
    model = Bag()
    steps, (good, bad) = stepper(model), bags(2)
    if not first:
        steps.step([good], RATE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    moments = {k: v.clone() for k, v in steps.optimizer.state.get(model.embed.weight, {}).items()}
    handle = model.head.register_forward_hook(lambda *_: _[-1] * float("nan"))
    steps.step([bad], RATE)
    handle.remove()
    assert steps.skipped() == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    after = steps.optimizer.state[model.embed.weight]
    assert all(torch.equal(after[name], value) for name, value in moments.items())
    steps.step([good], RATE)
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("reg", [
    Identity,
    lambda model: DropAttack(model, ["embed.weight", "head.weight"], 0.5, seed=1),
    lambda model: FreeLB(model, "embed", seed=1),
])  # fmt: skip
def test_a_run_from_a_checkpoint_is_the_run_that_was_never_stopped(tmp_path, reg):
    def start() -> tuple[Bag, Stepper]:
        torch.manual_seed(0)
        model = Bag()
        return model, stepper(model, reg=reg, clip_norm=0.5)

    batches = bags(6)
    whole, steps = start()
    for n, batch in enumerate(batches):
        torch.manual_seed(n)
        steps.step([batch], RATE)
    _, steps = start()
    for n, batch in enumerate(batches[:3]):
        torch.manual_seed(n)
        steps.step([batch], RATE)
    Checkpoints(tmp_path).save(Snapshot(3, {**steps.state_dict(), "reg": steps.reg.state_dict()}))
    continued, steps = start()
    state = Checkpoints(tmp_path).load().state
    steps.load_state_dict(state)
    steps.reg.load_state_dict(state["reg"])
    for n, batch in enumerate(batches[3:], 3):
        torch.manual_seed(n)
        steps.step([batch], RATE)
    assert all(torch.equal(x, y) for x, y in zip(whole.parameters(), continued.parameters(), strict=True))


def test_only_plain_lookup_tables_give_rows():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain, self.tied = nn.Embedding(5, 4), nn.Embedding(5, 4)
            self.bounded = nn.Embedding(5, 4, max_norm=1.0)
            self.counted = nn.Embedding(5, 4, scale_grad_by_freq=True)
            self.frozen = nn.Embedding(5, 4).requires_grad_(False)
            self.head = nn.Linear(4, 5, bias=False)
            self.head.weight = self.tied.weight

    assert use_row_gradients(Model()) == ["plain.weight"]


def test_a_model_without_tables_trains_as_with_adam():
    (one, _), (other, _) = (toy_train(optimizer=o) for o in ("adam", "lazy_adam"))
    assert all(torch.equal(x, y) for x, y in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("option", ["compile", "processes"])
def test_what_it_does_not_do_is_said(option, monkeypatch):
    if option == "compile":
        with pytest.raises(ValueError, match=r"lazy_adam.*compile"):
            stepper(Bag(), compile=True)
        return
    accelerator = make_accelerator(device="cpu")
    monkeypatch.setattr(type(accelerator), "num_processes", 2)
    with pytest.raises(ValueError, match=r"lazy_adam.*one process"):
        Stepper(Bag(), None, accelerator, optimizer="lazy_adam", learning_rate=RATE)


@pytest.mark.parametrize("override", ["trainer.compile=true", "trainer.precision=fp16"])
def test_a_config_that_it_cannot_do_is_refused_at_once(override):
    overrides = ["dataset=pydoc", "model=lstm", "scale=smoke", "trainer.optimizer=lazy_adam", override]
    with pytest.raises(UserError, match="lazy_adam needs"):
        check(experiment.resolve(compose(experiment.CONF, overrides)), experiment.CONF)
