"""Five optimizer steps against the published algorithms, written as their authors' loops are: in place, in float64.

Each loop below moves weights and puts them back, or embeds the text by itself, and knows nothing of targets and passes.
What a method draws is recorded and handed to the loop. `python -m tests.regularizers.test_parity` prints the errors.
"""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dropattack as da
from tests.regularizers.networks import NETWORKS, PADDING, LSTMClassifier
from tests.regularizers.test_oracles import recorded

TEXT, IMAGE = NETWORKS[0], NETWORKS[2]
TOLERANCE = 1e-10
Loop = Callable[..., None]


class Authors:
    """A model, its optimizer and the draws of five steps; `step` is one step of a loop below."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, draws: list[Tensor]):
        self.model, self.optimizer, self.draws = model, optimizer, draws
        self.memory: dict[str, Tensor] = {}

    def loss(self, batch) -> Tensor:
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def named(self) -> dict[str, nn.Parameter]:
        return dict(self.model.named_parameters())

    def embedded(self, e: Tensor) -> Tensor:
        """Logits of the LSTM from what its embedding gave."""
        model = self.model
        return model.head(model.drop_state(model.rnn(model.drop(e))[0][:, -1]))

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


def moved(a: Authors, shift: dict[str, Tensor], sign: float = 1.0) -> None:
    with torch.no_grad():
        for name, r in shift.items():
            a.named()[name].add_(r, alpha=sign)


def length(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).view(-1, *[1] * (x.dim() - 1))


def fgm(a: Authors, batch) -> None:
    a.loss(batch).backward()
    g = a.named()["embed.weight"].grad
    shift = {"embed.weight": 0.7 * g / g.norm()}
    moved(a, shift)
    a.loss(batch).backward()
    moved(a, shift, -1.0)


def pgd(a: Authors, batch) -> None:
    w = a.named()["embed.weight"]
    start = w.detach().clone()
    a.loss(batch).backward()
    kept = {n: p.grad.clone() for n, p in a.named().items()}
    for k in range(3):
        with torch.no_grad():
            w.add_(0.3 * w.grad / w.grad.norm())
            if (r := w - start).norm() > 0.7:
                w.copy_(start + 0.7 * r / r.norm())
        a.optimizer.zero_grad()
        if k == 2:
            for n, p in a.named().items():
                p.grad = kept[n].clone()
        a.loss(batch).backward()
    with torch.no_grad():
        w.copy_(start)


def sam(a: Authors, batch, adaptive: bool = False, friendly: bool = False) -> None:
    a.loss(batch).backward()
    d = {}
    for n, p in a.named().items():
        d[n] = p.grad.clone()
        if friendly and n in a.memory:
            d[n] -= 1.0 * a.memory[n]
            a.memory[n] = 0.9 * a.memory[n] + 0.1 * p.grad
        elif friendly:
            a.memory[n] = p.grad.clone()
    unit = {n: p.detach().abs() if adaptive else torch.ones_like(p) for n, p in a.named().items()}
    norm = torch.stack([(unit[n] * d[n]).norm() for n in d]).norm()
    shift = {n: 0.3 * unit[n] ** 2 * d[n] / norm for n in d}
    moved(a, shift)
    a.optimizer.zero_grad()
    a.loss(batch).backward()
    moved(a, shift, -1.0)


def msam(a: Authors, batch, key: str = "momentum_buffer") -> None:
    m = {n: a.optimizer.state[p][key] for n, p in a.named().items() if key in a.optimizer.state[p]}
    norm = torch.stack([v.norm() for v in m.values()]).norm() if m else None
    shift = {n: -0.3 * v / norm for n, v in m.items()}
    moved(a, shift)
    a.loss(batch).backward()
    moved(a, shift, -1.0)


def awp(a: Authors, batch) -> None:
    proxy = copy.deepcopy(a.model)
    F.cross_entropy(proxy(batch[0]), batch[1]).backward()
    shift = {}
    for (n, w), p in zip(a.named().items(), proxy.parameters(), strict=True):
        if "weight" in n and w.dim() > 1:
            ascended = p.detach() + 0.01 * p.grad  # the proxy's SGD step
            difference = ascended - w.detach()
            measured = w.detach()[batch[0].unique()] if n == EMBED else w.detach()  # ours: the rows of the batch
            shift[n] = 0.05 * measured.norm() * difference / difference.norm()
    moved(a, shift)
    a.loss(batch).backward()
    moved(a, shift, -1.0)


def rwp(a: Authors, batch) -> None:
    shift = {}
    for n, w in a.named().items():
        size = w.detach().norm() if w.dim() == 1 else length(w.detach())
        noise = a.draws.pop(0)
        if noise.shape != w.shape:
            noise = torch.zeros_like(w).index_copy(0, batch[0].unique(), noise)
        shift[n] = 0.05 * size * noise
    (0.5 * a.loss(batch)).backward()
    moved(a, shift)
    (0.5 * a.loss(batch)).backward()
    moved(a, shift, -1.0)


def neftune(a: Authors, batch) -> None:
    noise = a.draws.pop(0)
    keep = (batch[0] != PADDING)[:, :, None]
    bound = 2.0 / (keep.sum((1, 2)) * noise.shape[-1]).sqrt()
    assert (noise.abs() <= bound[:, None, None] * keep).all()
    F.cross_entropy(a.embedded(a.model.embed(batch[0]) + noise), batch[1]).backward()


def flooding(a: Authors, batch) -> None:
    ((a.loss(batch) - 1.0).abs() + 1.0).backward()


def both_ways(p: Tensor, q: Tensor) -> Tensor:
    one = F.kl_div(p.log_softmax(-1), q.softmax(-1), reduction="batchmean")
    return one + F.kl_div(q.log_softmax(-1), p.softmax(-1), reduction="batchmean")


def rdrop(a: Authors, batch) -> None:
    p, q = a.model(batch[0]), a.model(batch[0])
    ce = 0.5 * (F.cross_entropy(p, batch[1]) + F.cross_entropy(q, batch[1]))
    (ce + 2.0 * both_ways(p, q) / 2).backward()


def rat(a: Authors, batch) -> None:
    a.loss(batch).backward()
    g = a.named()["embed.weight"].grad.clone()
    shift = {"embed.weight": 0.7 * g / g.norm()}
    moved(a, shift)
    p, q = a.model(batch[0]), a.model(batch[0])
    ce = 0.5 * (F.cross_entropy(p, batch[1]) + F.cross_entropy(q, batch[1]))
    (ce + 0.5 * both_ways(p, q)).backward()
    moved(a, shift, -1.0)


def vat(a: Authors, batch) -> None:
    e, d = a.model.embed(batch[0]), a.draws.pop(0) * (batch[0] != PADDING)[:, :, None]
    logits = a.embedded(e)
    p = logits.softmax(-1).detach()
    d = (0.1 * d / length(d)).requires_grad_()
    distance = F.kl_div(a.embedded(e.detach() + d).log_softmax(-1), p, reduction="batchmean")
    (g,) = torch.autograd.grad(distance, d)
    r = 0.7 * g / length(g)
    lds = F.kl_div(a.embedded(e + r).log_softmax(-1), p, reduction="batchmean")
    (F.cross_entropy(logits, batch[1]) + lds).backward()


def smart(a: Authors, batch) -> None:
    e, noise = a.model.embed(batch[0]), a.draws.pop(0)
    noise = (0.1 * noise * (batch[0] != PADDING)[:, :, None]).requires_grad_()
    logits = a.embedded(e)
    kl = F.kl_div(a.embedded(e.detach() + noise).log_softmax(-1), logits.detach().softmax(-1), reduction="batchmean")
    (g,) = torch.autograd.grad(kl, noise)
    other = a.embedded(e + 0.3 * g / (g.abs().amax(-1, keepdim=True) + 1e-6))
    apart = F.kl_div(logits.log_softmax(-1), other.detach().softmax(-1), reduction="batchmean")
    apart = apart + F.kl_div(other.log_softmax(-1), logits.detach().softmax(-1), reduction="batchmean")
    (F.cross_entropy(logits, batch[1]) + 1.0 * apart).backward()


def creat(a: Authors, batch) -> None:
    ids, labels = batch
    model, e = a.model, a.model.embed(ids)
    delta = (0.05 * a.draws.pop(0) * (ids != PADDING)[:, :, None]).requires_grad_()

    def encoded(x: Tensor) -> tuple[Tensor, Tensor]:
        states = model.rnn(model.drop(x))[0]
        return F.cross_entropy(model.head(states[:, -1]), labels), states

    loss, h = encoded(e)
    other, h_other = encoded(e.detach() + delta)
    other = other - F.cosine_similarity(h_other, h.detach(), dim=-1).sum(-1).mean()
    (g,) = torch.autograd.grad(other, delta)
    ascended = (delta + 0.3 * g / length(g)).detach()
    ascended = ascended * (0.2 / length(ascended)).clamp(max=1.0)
    (0.5 * (loss + encoded(e + ascended)[0])).backward()


def freelb(a: Authors, batch) -> None:
    delta = a.draws.pop(0)
    for k in range(3):
        delta = delta.detach().requires_grad_()
        loss = F.cross_entropy(a.embedded(a.model.embed(batch[0]) + delta), batch[1]) / 3
        loss.backward()
        if k < 2:
            delta = delta + 0.2 * delta.grad / length(delta.grad)


EMBED = "embed.weight"
ROWS: dict[str, tuple[Callable[[nn.Module], da.Regularizer], Loop]] = {
    "fgm": (lambda m: da.FGM(m, EMBED, 0.7), fgm),
    "pgd": (lambda m: da.PGD(m, EMBED, 0.7), pgd),
    "freelb": (lambda m: da.FreeLB(m, alpha=0.2, seed=0), freelb),
    "rdrop": (lambda m: da.RDrop(m, alpha=2.0), rdrop),
    "rat": (lambda m: da.RAT(m, EMBED, 0.7), rat),
    "vat": (lambda m: da.VAT(m, epsilon=0.7, xi=0.1, seed=0), vat),
    "smart": (lambda m: da.SMART(m, eta=0.3, sigma=0.1, seed=0), smart),
    "creat": (lambda m: da.CreAT(m, encoder="rnn", alpha=0.3, epsilon=0.2, sigma=0.05, seed=0), creat),
    "neftune": (lambda m: da.NEFTune(m, alpha=2.0, seed=0), neftune),
    "sam": (lambda m: da.SAM(m, rho=0.3), sam),
    "asam": (lambda m: da.SAM(m, rho=0.3, adaptive=True), lambda a, b: sam(a, b, adaptive=True)),
    "fsam": (lambda m: da.FSAM(m, rho=0.3, decay=0.9), lambda a, b: sam(a, b, friendly=True)),
    "msam": (lambda m: da.MSAM(m, rho=0.3), msam),
    "msam, adam": (lambda m: da.MSAM(m, rho=0.3), lambda a, b: msam(a, b, key="exp_avg")),
    "awp": (lambda m: da.AWP(m, gamma=0.05), awp),
    "rwp": (lambda m: da.RWP(m, gamma=0.05, seed=0), rwp),
    "flooding": (lambda m: da.Flooding(m, level=1.0), flooding),
}
OF_WEIGHTS = ("sam", "asam", "fsam", "msam", "msam, adam", "awp", "rwp", "flooding")


def distance(name: str, network, dropout: float) -> float:
    """Return the worst relative difference of a weight after five steps."""
    make, loop = ROWS[name]
    ours = network.build(dropout)
    theirs = copy.deepcopy(ours)
    adam = "adam" in name

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        # A bias before BatchNorm has a gradient of rounding alone, which Adam divides by ε.
        return (
            torch.optim.Adam(model.parameters(), 0.01, eps=1e-6)
            if adam
            else torch.optim.SGD(model.parameters(), 0.05, 0.9)
        )

    batches, start = [network.batch(seed) for seed in range(5)], copy.deepcopy(ours.state_dict())
    own, reg = optimizer(ours), make(ours)
    reg.follow(own)
    with recorded() as draws:
        for number, batch in enumerate(batches):
            torch.manual_seed(number)
            reg.backward(lambda batch=batch: network.forward(ours, batch))
            own.step()
            own.zero_grad()
    authors = Authors(theirs, optimizer(theirs), draws)
    for number, batch in enumerate(batches):
        torch.manual_seed(number)
        loop(authors, batch)
        authors.update()
    assert not authors.draws, "the loop took fewer random tensors than the method drew"
    assert any(not torch.equal(p, start[n]) for n, p in theirs.named_parameters())
    found = dict(ours.named_parameters())
    return max(float((found[n] - p).detach().norm() / p.detach().norm()) for n, p in theirs.named_parameters())


CASES = [(name, TEXT, 0.3 if name in ("rdrop", "rat") else 0.0) for name in ROWS]
CASES += [(name, IMAGE, 0.0) for name in OF_WEIGHTS]


@pytest.mark.parametrize(("name", "network", "dropout"), CASES, ids=lambda v: getattr(v, "name", str(v)))
def test_five_steps_are_the_authors(name, network, dropout):
    assert distance(name, network, dropout) <= TOLERANCE


def test_the_loops_are_of_the_network_that_they_unfold():
    model, batch = TEXT.build(), TEXT.batch()
    assert isinstance(model, LSTMClassifier)
    unfolded = Authors(model, torch.optim.SGD(model.parameters(), 0.1), []).embedded(model.embed(batch[0]))
    torch.testing.assert_close(unfolded, model(batch[0]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        print(f"{case[0]:12} {case[1].name:6} {distance(*case):8.1e}")
