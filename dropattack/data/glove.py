"""Convert the official archive of GloVe 6B, 100 dimensions (Pennington, Socher and Manning 2014), to Parquet."""

from __future__ import annotations

import shutil
import tempfile
import urllib.request
import zipfile
from pathlib import Path

import numpy as np

from dropattack.data.hub import Unavailable, reachable
from dropattack.data.vectors import GLOVE_FILES
from dropattack.errors import UserError
from dropattack.files import write_atomically

URL = "https://nlp.stanford.edu/data/glove.6B.zip"  # 862 MB; vectors under PDDL 1.0
MEMBER = "glove.6B.100d.txt"
SIZE = 100


def prepare(to: Path, archive: Path | None = None) -> str:
    """Write `to/glove6b_100d/words.parquet` from a local archive, or else from the official one.

    Args:
        to: the data folder.
        archive: glove.6B.zip, or glove.6B.100d.txt itself.

    Returns:
        A sentence that describes the written file.

    Raises:
        Unavailable: no archive was given, and the official one cannot be fetched.
        UserError: the file is not GloVe's archive.
    """
    if archive is not None:
        return _from_file(archive, to)
    if not reachable(URL):
        raise Unavailable(f"{URL} does not answer (name a copy with --archive)")
    with tempfile.NamedTemporaryFile(suffix=".zip") as file:
        with urllib.request.urlopen(URL) as response:
            shutil.copyfileobj(response, file)
        file.flush()
        return _from_file(Path(file.name), to)


def _from_file(archive: Path, to: Path) -> str:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as folder:
                lines = folder.read(MEMBER).decode("utf-8").splitlines()
        else:
            lines = archive.read_text(encoding="utf-8").splitlines()
        pairs = [line.rsplit(" ", SIZE) for line in lines]
        words = [pair[0] for pair in pairs]
        vectors = np.array([pair[1:] for pair in pairs], dtype=np.float32)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")
        raise UserError(f"{archive} is not GloVe's archive ({reason}): get {URL}.") from error
    if vectors.shape != (len(words), SIZE) or not words:
        raise UserError(f"{archive} does not hold {SIZE} numbers for each word: get {URL}.")
    place = to / GLOVE_FILES[0]
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, _table(words, vectors))
    return f"{place}: {len(words):,} words, {SIZE} numbers each"


def _table(words: list[str], vectors: np.ndarray) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), SIZE)
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.table({"word": words, "vector": column}), sink, compression="zstd")
    return sink.getvalue().to_pybytes()
