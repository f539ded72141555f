"""The resolvers of conf/: values that depend on the scale, the method, or the content of files."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from dropattack.data.content import digest
from dropattack.runs.attacked import methods

SCALES = ("full", "mini", "smoke", "midi")


def register_resolvers() -> None:
    """Register the resolvers of conf/ with OmegaConf. May be called repeatedly.

    `${pick:${scale.name},full,mini,smoke,midi}` is the value for a scale; `${lengthened:5}` is 5 epochs, times
    `reg.times` if the method has it; `${content:root,path,…}` is a digest of the content of files or folders, or null
    if one does not exist: see `dropattack.data.content.digest`; `${rate:}` is the dropout that the method sets.
    """
    OmegaConf.register_new_resolver("pick", _pick, replace=True)
    OmegaConf.register_new_resolver("content", _content, replace=True)
    OmegaConf.register_new_resolver("lengthened", _lengthened, replace=True)
    OmegaConf.register_new_resolver("rate", _rate, replace=True)


def _lengthened(epochs: Any, *, _root_: DictConfig) -> Any:
    """Return `epochs`, multiplied by `reg.times` if the method has it."""
    reg = _root_.get("reg")
    return epochs * (reg.get("times") or 1) if isinstance(reg, DictConfig) else epochs


def _rate(*, _root_: DictConfig) -> Any:
    """Return `reg.rate`, or that of the methods of a composition.

    Raises:
        ValueError: two of them have different rates.
    """
    rates = {place: options["rate"] for place, options in methods(_root_.reg).items() if "rate" in options}
    if len(set(rates.values())) > 1:
        said = " and ".join(f"{place}.rate={rate}" for place, rate in rates.items())
        raise ValueError(f"{said} differ, and the model has one dropout: set them to the same rate")
    return next(iter(rates.values()))


def _pick(scale: str, *sizes: Any) -> Any:
    """Return the value for `scale`, given one value for each of SCALES. The default for midi is the value for full."""
    if len(sizes) not in (len(SCALES) - 1, len(SCALES)):
        raise ValueError(f"pick takes a value for each of {', '.join(SCALES)} (the last is optional), not {len(sizes)}")
    if scale not in SCALES:
        raise ValueError(f"there is no scale {scale!r}; scales: {', '.join(SCALES)}")
    return (*sizes, sizes[0])[SCALES.index(scale)]


def _content(root: str | None, path: str | None, *others: str | None) -> str | None:
    return None if path is None else digest(root or ".", str(path), *others)
