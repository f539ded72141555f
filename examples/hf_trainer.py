"""Hugging Face Trainer: one more argument, `regularizer`. Everything else is the Trainer's.

python examples/hf_trainer.py
torchrun --standalone --nproc_per_node=2 examples/hf_trainer.py

A tiny BERT, trained from scratch, reads the 64 pixels of a digit as 64 words.
"""

import tempfile

import torch
from _digits import TEST_ROWS, digits, run
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from dropattack import FGM
from dropattack.integrations.hf import RegularizedTrainer


class Pixels(Dataset):
    def __init__(self, rows: slice) -> None:
        self.x, self.y = (t[rows] for t in digits())

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"input_ids": (self.x[row] * 16).long(), "labels": self.y[row]}


def main(steps: int = 300, batch_size: int = 32, accumulate: int = 1) -> float:
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=17, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=64, num_labels=10, pad_token_id=None, initializer_range=0.2,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip
    # This head's loss is a mean, but the Trainer assumes that it is already normalised (transformers issue 47688).
    model.accepts_loss_kwargs = False
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=batch_size, learning_rate=3e-3,
            gradient_accumulation_steps=accumulate, report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = RegularizedTrainer(
            model=model,
            args=arguments,
            train_dataset=Pixels(slice(TEST_ROWS, None)),
            regularizer=lambda model: FGM(model, "bert.embeddings.word_embeddings.weight", epsilon=0.2),
            compute_metrics=lambda p: {"accuracy": (p.predictions.argmax(-1) == p.label_ids).mean()},
        )
        trainer.train()
        return trainer.evaluate(Pixels(slice(TEST_ROWS)))["eval_accuracy"]


if __name__ == "__main__":
    run(main)
