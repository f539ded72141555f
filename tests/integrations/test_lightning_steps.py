"""`regularized_step` in Lightning: with manual optimization, and instead of a loss that `training_step` returns."""

import pytest
import torch
from torch.nn import functional as F

from dropattack import PGD, Output
from tests.integrations.test_lightning import BATCHES, Module, build, fit


class Two(Module):
    """Two optimizers, which Lightning steps by manual optimization alone."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_regularizer(self):
        return PGD(self, "net.0", steps=2)

    def configure_optimizers(self):
        return [torch.optim.SGD(self.net[i].parameters(), lr=0.1) for i in (0, 2)]

    def training_step(self, batch, batch_idx):
        x, y = batch
        for optimizer in self.optimizers():
            self.toggle_optimizer(optimizer)
            before = [p.clone() for p in self.parameters()]
            losses = self.regularized_step(lambda: F.cross_entropy(self.net(x), y))
            assert losses == self.losses
            optimizer.step()
            optimizer.zero_grad()
            mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
            for p, old in zip(self.parameters(), before, strict=True):
                assert torch.equal(p, old) != (id(p) in mine)
            self.untoggle_optimizer(optimizer)


def test_manual_optimization_of_several_optimizers():
    module = Two()
    fit(module)
    assert module.trainer.global_step == 2 * 2 * BATCHES


def test_only_the_clean_pass_logs_in_manual_optimization_too():
    class Manual(Two):
        def training_step(self, batch, batch_idx):
            x, y = batch

            def forward():
                loss = F.cross_entropy(self.net(x), y)
                self.log("inside", loss)
                seen.append(self.is_clean_pass)
                return loss

            for optimizer in self.optimizers():  # each begins anew
                losses = self.regularized_step(forward)
                self.log("between", losses.clean)
                assert self.trainer.callback_metrics["inside"].item() == losses.clean.item()
                assert self.trainer.callback_metrics["between"].item() == losses.clean.item()
                seen.append(self.is_clean_pass)
                optimizer.step()
                optimizer.zero_grad()

    seen = []
    fit(Manual(), max_epochs=1)
    assert seen == [True, False, False, True] * 2 * BATCHES


def test_an_error_in_a_pass_of_manual_optimization_ends_the_step():
    class Failing(Two):
        def training_step(self, batch, batch_idx):
            def forward():
                if not self.is_clean_pass:
                    raise ArithmeticError
                return F.cross_entropy(self.net(batch[0]), batch[1])

            with pytest.raises(ArithmeticError):
                self.regularized_step(forward)
            assert self.is_clean_pass
            with pytest.raises(TypeError, match="forward must be a function"):
                self.regularized_step(torch.ones(()))

    fit(Failing(), max_epochs=1)


def test_manual_optimization_without_the_regularizer_is_not_silent():
    class Forgetful(Two):
        def training_step(self, batch, batch_idx):
            self.manual_backward(F.cross_entropy(self.net(batch[0]), batch[1]))

    with pytest.warns(UserWarning, match="trained without its regularizer"):
        fit(Forgetful())


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2, "precision": "bf16-mixed"}], ids=str)
def test_regularized_step_is_a_loss_returned(options):
    class Calling(Module):
        def training_step(self, batch, batch_idx):
            x, y = batch
            losses = self.regularized_step(lambda: F.cross_entropy(self.net(x), y), batch_idx)
            self.log("loss", losses.clean)

    calling, returning = Calling(), Module()
    for module in (calling, returning):
        fit(module, **options)
    assert all(torch.equal(a, b) for a, b in zip(calling.parameters(), returning.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(calling.net.parameters(), build().parameters(), strict=True))


@pytest.mark.parametrize("manual", [False, True])
def test_regularized_step_hands_on_which_positions_count(manual):
    """Of a loss that does not show them."""
    counts = torch.tensor([True, False]).expand(4, 2)

    class Tagging(Module):
        def __init__(self):
            super().__init__("rdrop", "epoch")
            self.automatic_optimization, self.seen = not manual, []

        def training_step(self, batch, batch_idx):
            x = torch.stack([batch[0], -batch[0]], 1)

            def forward():
                logits = self.net(x)
                self.seen.append(logits.detach())
                loss = -logits.log_softmax(-1)[counts].mean()
                return Output(loss, logits, counts)

            self.regularized_step(forward)

    module = Tagging()
    fit(module, max_epochs=1)
    p, q = (z.log_softmax(-1)[counts] for z in module.seen[-2:])
    agreement = module.losses.total - (module.losses.clean + module.losses.adversarial[0]) / 2
    torch.testing.assert_close(agreement, ((p.exp() - q.exp()) * (p - q)).sum(-1).mean())  # α = 2
