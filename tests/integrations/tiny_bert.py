"""A tiny BERT from scratch, its data and the Trainer's arguments, for test_hf.py and the processes of test_ddp.py."""

import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback, TrainingArguments

from dropattack import FGM, PGD, SAM, DropAttack, FreeLB, Identity, RDrop

WORDS, QUERY = "bert.embeddings.word_embeddings", "bert.encoder.layer.0.attention.self.query"
METHODS = {
    "identity": lambda m: Identity(m),
    "fgm": lambda m: FGM(m, f"{WORDS}.weight", epsilon=0.5),
    "pgd": lambda m: PGD(m, [WORDS, f"{QUERY}.weight"], steps=2),
    "freelb": lambda m: FreeLB(m, WORDS, seed=0),
    "dropattack": lambda m: DropAttack(m, [f"{WORDS}.weight", f"{QUERY}.weight"], epsilon=0.5, steps=2, seed=0),
    "rdrop": lambda m: RDrop(m, alpha=2.0),
    "sam": lambda m: SAM(m, rho=0.2),
}
ROWS = 12


class Rows(Dataset):
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(1, 20, (ROWS, 6), generator=generator)
        self.labels = torch.randint(3, (ROWS,), generator=generator)

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> dict:
        return {"input_ids": self.ids[row], "labels": self.labels[row]}


class Looking(TrainerCallback):
    """Keeps the first step's gradient, and torch's random state before it."""

    gradient = random = None

    def on_step_begin(self, args, state, control, **kwargs):
        if self.random is None:
            self.random = torch.get_rng_state()

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        if self.gradient is None:
            self.gradient = {n: p.grad.clone() for n, p in model.named_parameters()}


class InOrder:
    def _get_train_sampler(self, *args):
        return SequentialSampler(self.train_dataset)


def bert(dropout: float = 0.2) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20,
            max_position_embeddings=8, num_labels=3, pad_token_id=0, initializer_range=0.3,
            hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        )
    )  # fmt: skip


def arguments(folder, **options) -> TrainingArguments:
    defaults = {
        "max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "use_cpu": True, "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no", "dataloader_pin_memory": False,
    }  # fmt: skip
    return TrainingArguments(output_dir=str(folder), **{**defaults, **options})
