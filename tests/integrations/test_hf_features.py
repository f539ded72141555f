"""Features of the Trainer under a regularizer: exact against the plain Trainer and a loop by hand, or refused."""

import copy

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn
from torch.nn import functional as F
from transformers import Trainer
from transformers.integrations.neftune import neftune_post_forward_hook

import dropattack
from dropattack import FGM, Compose, CreAT, RDrop
from dropattack.integrations.hf import RegularizedTrainer
from dropattack.regularizers import Output
from tests.integrations.tiny_bert import METHODS, WORDS, InOrder, Looking, Rows, arguments, bert

COMPILED = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
REENTRANT = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}


class PlainTrainer(InOrder, Trainer):
    pass


class OurTrainer(InOrder, RegularizedTrainer):
    pass


@pytest.fixture(autouse=True)
def fresh_state():
    AcceleratorState._reset_state(reset_partial_state=True)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


def summed(outputs, labels, num_items_in_batch=None):
    """Return a loss that is a share of the accumulated batch's mean."""
    return F.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


def identical(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize(("options", "more"), [
    ({"neftune_noise_alpha": 5.0}, {}),
    pytest.param(COMPILED, {}, marks=pytest.mark.slow),
    (REENTRANT, {}),
    ({"gradient_accumulation_steps": 3}, {"compute_loss_func": summed}),
    ({"max_grad_norm": 0.01, "gradient_accumulation_steps": 2}, {}),
    ({"optim": "adafactor"}, {}),
    ({"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 1}, {}),
    ({"torch_empty_cache_steps": 1, "average_tokens_across_devices": False}, {}),
], ids=lambda x: ",".join(x))  # fmt: skip
def test_identity_is_the_plain_trainer(tmp_path, options, more):
    trained = []
    for make in (lambda **k: PlainTrainer(**k), lambda **k: OurTrainer(regularizer=METHODS["identity"], **k)):
        torch._dynamo.reset()
        trainer = make(
            model=bert(), args=arguments(tmp_path, **options), train_dataset=Rows(), eval_dataset=Rows(), **more
        )
        trained.append((trainer.train().training_loss, trainer))
    assert trained[0][0] == trained[1][0]
    assert identical(trained[0][1].model, trained[1][1].model)
    assert not identical(trained[0][1].model, bert())


@pytest.mark.parametrize(("options", "name"), [
    *(({"neftune_noise_alpha": 5.0}, name) for name in METHODS),
    *((REENTRANT, name) for name in METHODS if name != "rdrop"),  # which refuses a model without dropout
    *(({"gradient_checkpointing": True}, name) for name in ("freelb", "dropattack")),
    *(pytest.param(COMPILED, name, marks=pytest.mark.slow) for name in ("freelb", "dropattack")),
], ids=lambda x: x if isinstance(x, str) else ",".join(x))  # fmt: skip
def test_the_gradient_is_that_of_a_loop_by_hand(tmp_path, options: dict, name: str):
    make = METHODS[name]
    # Without dropout where its masks are drawn elsewhere (compiled) or again (checkpointing).
    model, looking = bert(0.2 if "neftune_noise_alpha" in options else 0.0), Looking()
    hand = copy.deepcopy(model)
    trainer = OurTrainer(
        model=model, args=arguments(tmp_path, max_steps=1, max_grad_norm=0.0, **options), train_dataset=Rows(),
        regularizer=make, callbacks=[looking],
    )  # fmt: skip
    trainer.train()

    reg, rows = make(hand.train()), Rows()
    if alpha := options.get("neftune_noise_alpha"):
        words = hand.get_input_embeddings()
        words.neftune_noise_alpha = alpha
        words.register_forward_hook(neftune_post_forward_hook)
    # A compiled model's embedding is attacked as a whole matrix, which draws other masks.
    called = torch.compile(hand, backend="aot_eager") if "torch_compile" in options else hand
    torch.set_rng_state(looking.random)

    def forward():
        logits = called(input_ids=rows.ids[:4]).logits
        return Output(F.cross_entropy(logits, rows.labels[:4]), logits)

    reg.backward(forward)
    found = torch.cat([g.flatten() for g in looking.gradient.values()])
    wanted = torch.cat([p.grad.flatten() for p in hand.parameters()])
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


class Full(nn.Module):
    """Runs out of memory once, in the middle of a step, at more than two rows."""

    def __init__(self, inner: nn.Module, at: int) -> None:
        super().__init__()
        self.inner, self.at, self.calls = inner, at, 0

    def forward(self, input_ids, labels):
        self.calls += 1
        if self.calls >= self.at and len(input_ids) > 2:
            raise RuntimeError("CUDA out of memory.")
        return self.inner(input_ids=input_ids, labels=labels)


@pytest.mark.parametrize("name", ["identity", "fgm", "dropattack", "sam"])
def test_auto_find_batch_size_starts_over(tmp_path, name):
    """What a step that ran out of memory left behind does not reach the steps that follow."""
    make, options = METHODS[name], {"max_steps": 2, "max_grad_norm": 0.0}

    def prefixed(model: Full):
        return make(model.inner)

    full = Full(bert(0.0), at=1 if name == "identity" else 2)
    before = copy.deepcopy(full.inner)
    trainer = OurTrainer(
        model=full, args=arguments(tmp_path, auto_find_batch_size=True, **options), train_dataset=Rows(),
        regularizer=prefixed,
    )  # fmt: skip
    trainer.train()
    assert full.calls > 2
    small = OurTrainer(
        model=before, args=arguments(tmp_path, per_device_train_batch_size=2, **options), train_dataset=Rows(),
        regularizer=make,
    )  # fmt: skip
    if name == "dropattack":  # its masks were drawn from, as dropout's would be
        assert all(p.isfinite().all() for p in full.parameters())
        return
    small.train()
    assert identical(full.inner, before)


@pytest.mark.parametrize("optim", [
    "lomo", "adalomo", "galore_adamw_layerwise", "galore_adafactor_layerwise", "apollo_adamw_layerwise",
])  # fmt: skip
def test_optimizers_that_step_in_the_backward_are_refused(tmp_path, optim: str):
    options = arguments(tmp_path, optim=optim)
    with pytest.raises(ValueError, match="steps within the backward"):
        OurTrainer(model=bert(), args=options, train_dataset=Rows(), regularizer=METHODS["fgm"])


@pytest.mark.parametrize(("given", "options", "error", "message"), [
    (nn.Linear, None, TypeError, r"regularizer=lambda model: FGM\(model, "),
    (None, None, TypeError, 'as in regularizer="fgm" or'),
    ({"name": "fgm"}, None, TypeError, 'as in regularizer="fgm" or'),
    ("fmg", None, ValueError, "there is no method 'fmg'; did you mean 'fgm'[?] methods: awp, "),
    ("compose", None, ValueError, "there is no method 'compose'"),
    ("fgm", {"epsilonn": 1.0}, TypeError, r"FGM has no option 'epsilonn' \(epsilon\?\); options: targets, .*schedule"),
    ("fgm", {"epsilon": -1.0}, ValueError, "epsilon .*-1.0"),
    ("dropattack", None, TypeError, "DropAttack needs targets, .*bert.embeddings.word_embeddings.weight"),
    (lambda m: FGM(m), {"epsilon": 1.0}, TypeError, "regularizer_options are for a method given by name"),
])  # fmt: skip
def test_a_regularizer_that_cannot_be_made_says_what_to_write(tmp_path, given, options, error, message):
    with pytest.raises(error, match=message):
        OurTrainer(
            model=bert(), args=arguments(tmp_path), train_dataset=Rows(), regularizer=given, regularizer_options=options
        )


def test_a_class_is_a_function_of_the_model(tmp_path):
    trainer = OurTrainer(model=bert(), args=arguments(tmp_path), train_dataset=Rows(), regularizer=FGM)
    assert [t.name for t in trainer.regularizer_for(trainer.model).targets] == [f"{WORDS}.weight"]


@pytest.mark.parametrize(("name", "options"), [("fgm", {"epsilon": 0.5}), ("FreeLB", {"seed": 0}), ("none", None)])
def test_a_name_is_the_method_with_its_own_targets(tmp_path, name, options):
    trained = []
    for given in (name, lambda m: dropattack.make(name, m, **(options or {}))):
        own = options if given is name else None
        trainer = OurTrainer(
            model=bert(), args=arguments(tmp_path), train_dataset=Rows(), regularizer=given, regularizer_options=own
        )
        trainer.train()
        trained.append(trainer.model)
    assert identical(*trained)
    target = {"fgm": f"{WORDS}.weight", "FreeLB": WORDS}.get(name)
    assert [t.name for t in trainer.regularizer_for(trainer.model).targets] == ([target] if target else [])


@pytest.mark.parametrize("method", ["RDrop", "RAT", "VAT", "SMART", "CreAT", "Compose", "FGM", "CreAT of an encoder"])
def test_what_compares_logits_needs_them_under_their_name(tmp_path, method):
    def make(model):
        if method == "Compose":
            return Compose(FGM(model), RDrop(model))
        return CreAT(model, encoder="bert.encoder") if " " in method else getattr(dropattack, method)(model)

    model = bert()
    model.config.return_dict = False
    trainer = OurTrainer(model=model, args=arguments(tmp_path), train_dataset=Rows(), regularizer=make)
    if method in ("FGM", "CreAT of an encoder"):
        trainer.train()
        assert trainer.losses is not None
        return
    with pytest.raises(ValueError, match=f"{method} compares logits, .* returned none .*return_dict=True"):
        trainer.train()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters(tmp_path, checkpointing):
    """The base is frozen: its weights are refused, its activations and the adapters' weights attacked."""
    peft = pytest.importorskip("peft")

    def adapted():
        torch.manual_seed(0)
        config = peft.LoraConfig(target_modules=["query"], modules_to_save=["classifier"], r=2, init_lora_weights=False)
        return peft.get_peft_model(bert(0.0), config)

    words = f"base_model.model.{WORDS}"
    lora = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.default.weight"
    rows = Rows()
    options = arguments(tmp_path, max_steps=1, max_grad_norm=0.0, gradient_checkpointing=checkpointing)
    for target in (words, lora):
        looking, model, hand = Looking(), adapted(), adapted()
        looking.on_pre_optimizer_step = lambda *a, model, looking=looking, **k: setattr(
            looking, "gradient", {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )
        OurTrainer(
            model=model, args=options, train_dataset=rows, callbacks=[looking],
            regularizer=lambda m, target=target: FGM(m, target, epsilon=0.5),
        ).train()  # fmt: skip
        reg = FGM(hand.train(), target, epsilon=0.5)
        reg.backward(lambda hand=hand: hand(input_ids=rows.ids[:4], labels=rows.labels[:4]).loss)
        wanted = {n: p.grad for n, p in hand.named_parameters() if p.grad is not None}
        assert looking.gradient.keys() == wanted.keys()
        for name, gradient in looking.gradient.items():
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="is frozen"):
        OurTrainer(model=adapted(), args=options, train_dataset=rows, regularizer=lambda m: FGM(m, f"{words}.weight"))
