"""RegularizedTrainer against the plain Trainer (Identity, bit for bit) and against a loop by hand."""

import copy
import warnings
from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.nn import functional as F
from transformers import BertForTokenClassification, BertLMHeadModel, Trainer

from dropattack import FGM, MSAM, RAT, SMART, VAT, CreAT, Flooding, RDrop
from dropattack.integrations.hf import RegularizedTrainer, RegularizerMixin
from dropattack.regularizers import Output
from tests.integrations.tiny_bert import METHODS, InOrder, Looking, Rows, arguments, bert

each_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())


class PlainTrainer(InOrder, Trainer):
    pass


class OurTrainer(InOrder, RegularizedTrainer):
    pass


@pytest.fixture(autouse=True)
def fresh_state():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def weights(trainer) -> list[torch.Tensor]:
    return list(trainer.model.parameters())


def assert_identical(one, two) -> None:
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


def identities() -> Iterator:
    """Yield options of the Trainer with `share`, what it takes the loss for; not every pair is fast."""
    for number, options in enumerate([
        {}, {"gradient_accumulation_steps": 2}, {"gradient_accumulation_steps": 3}, {"bf16": True},
        {"label_smoothing_factor": 0.1, "gradient_accumulation_steps": 3}, {"gradient_checkpointing": True},
    ]):  # fmt: skip
        for share in (True, False):
            fast = share == number % 2 or "gradient_accumulation_steps" in options
            name = f"{options}-{'a share' if share else 'a mean'}"
            yield pytest.param(options, share, id=name, marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize(("options", "share"), identities())
def test_identity_is_the_plain_trainer(tmp_path, options: dict, share: bool):
    trained = []
    for make in (lambda **k: PlainTrainer(**k), lambda **k: OurTrainer(regularizer=METHODS["identity"], **k)):
        trainer = make(model=bert(), args=arguments(tmp_path, **options), train_dataset=Rows())
        trainer.model_accepts_loss_kwargs = share
        trained.append((trainer, trainer.train()))
    assert_identical(trained[0][0], trained[1][0])
    assert trained[0][1].training_loss == trained[1][1].training_loss


@each_method
@pytest.mark.parametrize(("accumulate", "bf16", "smoothing"), [
    (1, False, 0.0), (1, True, 0.1), (2, False, 0.1), (2, True, 0.0),  # each option with each other
    *(pytest.param(*rest, marks=pytest.mark.slow) for rest in (
        (1, False, 0.1), (1, True, 0.0), (2, False, 0.0), (2, True, 0.1),
    )),
])  # fmt: skip
def test_the_gradient_is_that_of_a_loop_by_hand(tmp_path, make, accumulate: int, bf16: bool, smoothing: float):
    options = arguments(
        tmp_path, max_steps=1, gradient_accumulation_steps=accumulate, bf16=bf16, max_grad_norm=0.0,
        label_smoothing_factor=smoothing,
    )  # fmt: skip
    model, looking = bert(), Looking()
    hand = copy.deepcopy(model)
    trainer = OurTrainer(
        model=model, args=options, train_dataset=Rows(), regularizer=make, callbacks=[looking]
    )  # fmt: skip
    # Without smoothing, BERT's head gives a mean, whatever the Trainer believes (transformers issue 47688).
    trainer.loss_is_scaled_for_ga = smoothing > 0
    total = trainer.train().training_loss

    reg, rows = make(hand.train()), Rows()
    torch.set_rng_state(looking.random)
    objectives = []
    for micro in range(accumulate):
        part = slice(4 * micro, 4 * (micro + 1))

        def forward(part=part):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                logits = hand(input_ids=rows.ids[part]).logits
            return Output(F.cross_entropy(logits.float(), rows.labels[part], label_smoothing=smoothing), logits)

        losses = reg.backward(forward, backward=lambda loss: (loss / accumulate).backward())
        objectives.append(losses.total.item() / accumulate)
    # bfloat16 rounds at other places: Accelerate's autocast ends after the model, and so after its loss
    tolerance = 3e-2 if bf16 else 1e-5
    assert total == pytest.approx(sum(objectives), rel=tolerance)
    found = torch.cat([g.flatten() for g in looking.gradient.values()])
    wanted = torch.cat([p.grad.flatten() for p in hand.parameters()])
    assert (found - wanted).norm() <= tolerance * wanted.norm()
    assert trainer.losses is not None
    assert trainer.losses.logits is None


class Tagged(Rows):
    """A label for each word, and none for some."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = self.ids % 3
        self.labels[:, 4:] = -100


def agreement(trainer: Trainer, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """R-Drop's term in one step with α = 2, and that by hand over the positions that count."""
    seen = []
    trainer.model.register_forward_hook(lambda module, args, output: seen.append(output["logits"].detach()))
    trainer.train()
    one, two = seen
    p, q = one.log_softmax(-1)[counts], two.log_softmax(-1)[counts]
    found = trainer.losses.total - (trainer.losses.clean + trainer.losses.adversarial[0]) / 2
    return found, ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_positions_without_a_label_are_left_out_of_the_divergence(tmp_path, smoothing):
    rows, config = Tagged(), bert().config
    options = arguments(tmp_path, max_steps=1, label_smoothing_factor=smoothing)
    trainer = OurTrainer(
        model=BertForTokenClassification(config), args=options, train_dataset=rows, regularizer=METHODS["rdrop"]
    )
    torch.testing.assert_close(*agreement(trainer, rows.labels[:4] >= 0))


def test_a_smoothed_loss_of_shifted_labels_asks_for_a_mask(tmp_path):
    class Masked(OurTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            counts = F.pad(inputs["labels"][:, 1:] >= 0, (0, 1))
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
            return loss, {"logits": outputs.logits, "mask": counts}

    rows, config = Tagged(), bert().config
    config.is_decoder = True
    options = {
        "args": arguments(tmp_path, max_steps=1, label_smoothing_factor=0.1), "train_dataset": rows,
        "regularizer": METHODS["rdrop"],
    }  # fmt: skip
    with pytest.raises(ValueError, match="does not have a label for each position"):
        OurTrainer(model=BertLMHeadModel(config), **options).train()
    counts = F.pad(rows.labels[:4, 1:] >= 0, (0, 1))
    torch.testing.assert_close(*agreement(Masked(model=BertLMHeadModel(config), **options), counts))


@pytest.mark.parametrize("name", ["dropattack", "freelb"])
def test_a_resumed_training_is_the_one_that_was_never_stopped(tmp_path, name: str):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = RegularizedTrainer(
        model=bert(), args=arguments(tmp_path, **options), train_dataset=Rows(), regularizer=METHODS[name]
    )
    whole.train()
    resumed = RegularizedTrainer(
        model=bert(), args=arguments(tmp_path, **options), train_dataset=Rows(), regularizer=METHODS[name]
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_identical(whole, resumed)
    (tmp_path / "checkpoint-2" / "regularizer_state_0.pth").unlink()
    without = RegularizedTrainer(
        model=bert(), args=arguments(tmp_path, **options), train_dataset=Rows(), regularizer=METHODS[name]
    )
    without.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    with pytest.raises(AssertionError):  # so the state mattered
        assert_identical(whole, without)


def test_all_processes_of_a_resumed_training_have_one_objective(tmp_path):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trainer = RegularizedTrainer(
        model=bert(), args=arguments(tmp_path, **options), train_dataset=Rows(), regularizer=METHODS["dropattack"]
    )
    trainer.train()
    saved = trainer.regularizer_for(trainer.model).state_dict()
    folder = str(tmp_path / "checkpoint-2")
    with pytest.warns(UserWarning, match="another number of processes"):
        trainer._load_regularizer(folder, rank=1, world=2)
    taken = trainer.regularizer_for(trainer.model).state_dict()
    assert taken["calls"] == saved["calls"] > 0
    assert taken["seed"] != saved["seed"]
    assert taken["generators"] == {}
    trainer._load_regularizer(folder, rank=0, world=2)
    again = trainer.regularizer_for(trainer.model).state_dict()
    assert again["seed"] == saved["seed"]
    assert all(torch.equal(again["generators"][key], one) for key, one in saved["generators"].items())


def test_a_trainers_own_steps_run_if_it_comes_before_the_mixin(tmp_path):
    class Counting(PlainTrainer):
        steps = 0

        def training_step(self, *args, **kwargs):
            self.steps += 1
            return super().training_step(*args, **kwargs)

    class Hidden(RegularizerMixin, Counting):
        pass

    class Seen(Counting, RegularizerMixin, PlainTrainer):
        pass

    options = {"args": arguments(tmp_path, max_steps=2), "train_dataset": Rows(), "regularizer": METHODS["fgm"]}
    with pytest.warns(UserWarning, match=r"Counting does not run.*class Hidden\(Counting, RegularizerMixin, Trainer\)"):
        Hidden(model=bert(), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer = Seen(model=bert(), **options)
    trainer.train()
    assert trainer.steps == 2
    assert len(trainer.losses.adversarial) == 1


def test_the_regularizer_is_a_model_s_own(tmp_path):
    options = {"args": arguments(tmp_path), "train_dataset": Rows()}
    with pytest.raises(ValueError, match="another model"):
        RegularizedTrainer(model=bert(), regularizer=METHODS["fgm"](bert()), **options)
    with pytest.raises(ValueError, match="matches no parameter"):
        RegularizedTrainer(model=bert(), regularizer=lambda m: FGM(m, "nothing"), **options)
    model = bert()
    reg = METHODS["fgm"](model)
    trainer = RegularizedTrainer(model=model, regularizer=reg, **options)
    trainer.train()
    assert trainer.regularizer_for(model) is reg
    remade = RegularizedTrainer(model_init=lambda: bert(), regularizer=METHODS["fgm"], **options)
    remade.train()
    assert remade.regularizer_for(remade.model).model is remade.model


@pytest.mark.parametrize("optim", ["lomo", "galore_adamw_layerwise"])
def test_optimizers_that_step_in_the_backward_are_refused(tmp_path, optim: str):
    with pytest.raises(ValueError, match="steps within the backward"):
        RegularizedTrainer(
            model=bert(), args=arguments(tmp_path, optim=optim), train_dataset=Rows(), regularizer=METHODS["fgm"]
        )


def test_the_mixin_fits_other_trainers_and_losses(tmp_path):
    class Weighted(RegularizerMixin, PlainTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = F.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 2.0, 3.0]))
            return (loss, outputs) if return_outputs else loss

    trainer = Weighted(
        model=bert(), args=arguments(tmp_path, max_steps=2), train_dataset=Rows(), regularizer=METHODS["dropattack"]
    )
    trainer.train()
    assert len(trainer.losses.adversarial) == 4


@pytest.mark.parametrize("method", [RDrop, RAT, VAT, SMART, CreAT, Flooding])
def test_what_is_not_linear_asks_what_an_accumulated_loss_is(tmp_path, method):
    options = arguments(tmp_path, gradient_accumulation_steps=2)
    trainer = RegularizedTrainer(
        model=bert(), args=options, train_dataset=Rows(), regularizer=lambda model: method(model)
    )
    with pytest.raises(ValueError, match=f"{method.__name__} with gradient accumulation .*loss_is_scaled_for_ga"):
        trainer.train()


def test_msam_gets_the_trainers_optimizer(tmp_path):
    trainer = RegularizedTrainer(
        model=bert(), args=arguments(tmp_path), train_dataset=Rows(), regularizer=lambda model: MSAM(model)
    )
    trainer.train()
    regularizer = trainer.regularizer_for(trainer.model)
    assert regularizer._momentum(regularizer.targets[0]) is not None
