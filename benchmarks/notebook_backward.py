"""The result of the authors' final backward on this machine, and the effect of their accumulated direction.

Prints the relative error ‖a − b‖/‖b‖ and the cosine of each parameter's gradient, for two comparisons. "backward": one
backward of the summed losses, with weights changed and restored without autograd noticing, against one backward per
pass (exact). "direction": DropAttack's `mode="notebook"` against `mode="paper"`. Try `--hidden 300`, `--device cuda`.
"""

import argparse
import copy

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.authors_step import exact_step, notebook_step
from dropattack import DropAttack


class Text(nn.Module):
    def __init__(self, cell: type[nn.RNNBase], hidden: int, packed: bool):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(2000, hidden), cell(hidden, hidden, batch_first=True)
        self.head, self.packed = nn.Linear(hidden, 4), packed

    def forward(self, ids):
        x = self.embed(ids)
        if self.packed:
            lengths = ids.shape[1] - torch.arange(len(ids)) % ids.shape[1]  # equal lengths would take the padded path
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        state = self.rnn(x)[1]
        return self.head((state[0] if isinstance(state, tuple) else state)[-1])


def image(hidden: int) -> nn.Module:
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(256, hidden), nn.ReLU(), nn.Linear(hidden, 4))


def agreement(found: nn.Module, wanted: nn.Module) -> list[str]:
    pairs = [(a.grad.ravel(), b.grad.ravel()) for a, b in zip(found.parameters(), wanted.parameters(), strict=True)]
    return [f"{(a - b).norm() / b.norm():9.1e} {F.cosine_similarity(a, b, 0):7.4f}" for a, b in pairs]


def study(title: str, model: nn.Module, targets: list[str], args: argparse.Namespace) -> None:
    n, text = args.batch, isinstance(model, Text)
    x = torch.randint(2000, (n, args.length)) if text else torch.randn(n, 3, 16, 16)
    x, y = x.to(args.device), torch.randint(4, (n,), device=args.device)
    models = [copy.deepcopy(model).to(args.device) for _ in range(4)]
    masks = {name: torch.bernoulli(torch.full_like(w, args.p)) for name, w in models[0].named_parameters()}
    settings = {"epsilon": args.epsilon, "steps": args.steps}
    for step, m in ((notebook_step, models[0]), (notebook_step, models[0]), (exact_step, models[1])):
        m.zero_grad()  # run the notebook's step twice, because the first changes the layout of cuDNN's weights
        step(m, lambda m=m: F.cross_entropy(m(x), y), targets, draw=lambda name, _: masks[name], **settings)
    for mode, m in zip(("notebook", "paper"), models[2:], strict=True):
        DropAttack(m, targets, p=args.p, mode=mode, seed=0, **settings).backward(lambda m=m: F.cross_entropy(m(x), y))
    print(f"\n{title:34} backward  cosine   direction  cosine")
    for name, one, two in zip(masks, agreement(*models[:2]), agreement(*models[2:]), strict=True):
        print(f"  {name + (' (attacked)' if name in targets else ''):30} {one}   {two}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"hidden": 64, "length": 32, "batch": 16, "steps": 3, "epsilon": 5.0, "p": 0.5, "device": "cpu"}
    for option, default in defaults.items():
        parser.add_argument(f"--{option}", type=type(default), default=default, help="default %(default)s")
    args, rnn = parser.parse_args(), ["embed.weight", "rnn.weight_ih_l0"]
    study("LSTM, float32, padded", Text(nn.LSTM, args.hidden, False), rnn, args)
    study("LSTM, float32, packed", Text(nn.LSTM, args.hidden, True), rnn, args)
    study("LSTM, float64, padded", Text(nn.LSTM, args.hidden, False).double(), rnn, args)
    study("GRU, float32, padded", Text(nn.GRU, args.hidden, False), rnn, args)
    study("CNN, a convolution attacked", image(args.hidden), ["0.weight", "2.weight"], args)
    study("CNN, a linear layer attacked", image(args.hidden), ["0.weight", "6.weight"], args)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
