"""Names of models and data sets in tables and figures, and notes on the data that pretrained encoders had seen."""

from collections.abc import Iterable, Mapping
from typing import Any

# Names for `model.pretrained`: no reader must take MiniLM for BERT-base.
ENCODERS = {"minilm": "MiniLM", "mpnet": "MPNet", "bert-base-uncased": "BERT-base"}
# From the model cards of all-MiniLM-L6-v2 and all-mpnet-base-v2.
PAIRS = (
    "{} was fine-tuned on more than a billion pairs of sentences before, among them SNLI, MultiNLI, questions of Quora "
    "and SQuAD 2.0: entailment, as in RTE, and paraphrases, as in MRPC, are not new to it."
)
SEEN = {"minilm": PAIRS, "mpnet": PAIRS}
GLUE = (
    "GLUE is tested on its validation rows, and our validation rows are carved from its training rows: the test labels "
    "of RTE and CoLA are not public, and those of MRPC are not used."
)


def model_label(name: str, pretrained: object = None) -> str:
    """Return a model's name in tables and figures: `lstm`, `MiniLM (model=bert)`.

    Args:
        name: of the model's group, such as `bert`.
        pretrained: `model.pretrained`.
    """
    encoder = ENCODERS.get(pretrained) if isinstance(pretrained, str) else None
    return f"{encoder} (model={name})" if encoder else name


def file_name(label: str) -> str:
    """Return a model's label as a part of a file's name: `MiniLM (model=bert)` becomes `MiniLM-bert`."""
    return label.replace(" (model=", "-").removesuffix(")")


def dataset_label(options: Mapping[str, Any]) -> str:
    """Return a data set's name in tables and figures, given its options: `imdb`, `glue-rte`."""
    return "-".join(str(options[key]) for key in ("name", "task") if options.get(key) is not None)


def seen_before(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return notes for a table of these runs, given their flat settings: on GLUE's rows, and on each encoder."""
    on_glue = [one for one in settings if one.get("dataset.name") == "glue"]
    names = sorted({str(one.get("model.pretrained")) for one in on_glue} & SEEN.keys())
    return [*([GLUE] if on_glue else []), *(SEEN[name].format(ENCODERS[name]) for name in names)]
