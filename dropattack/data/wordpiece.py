"""BERT's word pieces, from a pretrained model or trained on the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from dropattack.data.pretrained import resolve_pretrained
from dropattack.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"


def pretrained_pieces(name: str) -> tuple[Backend, int, int]:
    """Return (tokenizer, padding id, unknown id) of a pretrained model; see `resolve_pretrained`.

    Raises:
        UserError: the tokenizer is not available or not usable.
    """  # noqa: DOC501  the ValueError becomes a UserError
    from transformers import AutoTokenizer

    place = resolve_pretrained(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, use_fast=True, trust_remote_code=False)
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers' result for an empty folder
            raise ValueError("it has no vocabulary")
        # GPT-2 and similar models have neither; padding is masked, so any id works.
        end, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id
        padding = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return tokenizer.backend_tokenizer, int(padding), int(padding if unknown is None else unknown)
    except Exception as error:  # missing or broken files, no special tokens: many kinds of errors
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(" .:")
        raise UserError(f"{place} holds no usable tokenizer ({reason}); name another model.") from error


def trained_pieces(texts: Callable[[], Iterable[str]], size: int) -> tuple[Backend, int, int]:
    """Return (tokenizer, padding id, unknown id) of a lower-cased BERT vocabulary trained on `texts()`.

    The most frequent thousand characters are kept (at most a quarter of `size`). The vocabulary is deterministic: the
    same corpus gives the same one in every process.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.WordPiece(unk_token=UNK))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The trainer numbers the characters inside words ("##a") in the order of a hash map, which changes from run to run,
    # and breaks ties by these numbers. Passing them as special tokens fixes the numbers beforehand.
    counts: Counter[str] = Counter()
    for text in texts():
        counts.update(backend.normalizer.normalize_str(text))
    ranked = sorted((-count, character) for character, count in counts.items() if not character.isspace())
    alphabet = sorted(character for _, character in ranked[: min(1_000, size // 4)])
    special = [PAD, UNK, CLS, SEP, MASK]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*special, *(f"##{character}" for character in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(texts(), trainer)
    # Build a new tokenizer in which "##a" is not a special token.
    made = Tokenizer(models.WordPiece(backend.get_vocab(), unk_token=UNK))
    made.normalizer, made.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    made.post_processor = processors.BertProcessing((SEP, special.index(SEP)), (CLS, special.index(CLS)))
    return made, special.index(PAD), special.index(UNK)
