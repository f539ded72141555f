"""BERT's word pieces: a pretrained model's, or trained on the data."""

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
    """(tokenizer, id of padding, id of unknown) of a pretrained model; see `resolve_pretrained`.

    Raises:
        UserError: it cannot be had, or is no tokenizer of use here.
    """
    from transformers import AutoTokenizer

    place = resolve_pretrained(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, use_fast=True, trust_remote_code=False)
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes one of a folder that has none
            raise ValueError("it has no vocabulary")
        # GPT-2 and its kin know neither; padding is masked, so that any id will do.
        end, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id
        padding = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return tokenizer.backend_tokenizer, int(padding), int(padding if unknown is None else unknown)
    except Exception as error:  # a folder without tokenizer files, broken ones, one without special tokens: many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(" .:")
        raise UserError(f"{place} holds no tokenizer that can be used ({reason}); name another model.") from error


def trained_pieces(texts: Callable[[], Iterable[str]], size: int) -> tuple[Backend, int, int]:
    """(tokenizer, id of padding, id of unknown) of a lower-cased BERT vocabulary trained on `texts()`.

    Of the characters the most frequent thousand (and at most a quarter of `size`) are kept; one corpus gives one
    vocabulary, in every process.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.WordPiece(unk_token=UNK))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The trainer numbers the characters inside words ("##a") in the order of a hash map, which is another in every run,
    # and breaks ties by these numbers. Given as special tokens they have their numbers before it starts.
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
    # A tokenizer anew, in which "##a" is no special token.
    made = Tokenizer(models.WordPiece(backend.get_vocab(), unk_token=UNK))
    made.normalizer, made.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    made.post_processor = processors.BertProcessing((SEP, special.index(SEP)), (CLS, special.index(CLS)))
    return made, special.index(PAD), special.index(UNK)
