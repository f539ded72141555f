"""A user's own files: tables, data sets of Hugging Face, images, models and plug-ins that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from tests.data.makers import encoded_image, image_split, texts, write_table
from tests.hostile.case import Case
from tests.hostile.pretrained import SIZES, bert

Make = Callable[[Path], Sequence[str]]
TABLE = ("dataset=csv", "dataset.path=own.csv", "model=lstm")
HEADER, LINES = "text,label\n", [f"a text {i},{'yes' if i % 2 else 'no'}\n" for i in range(20)]
_NUMBERS = count()


def table(text: str | bytes, *overrides: str, name: str = "own.csv") -> Make:
    def make(folder: Path) -> Sequence[str]:
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return ["dataset=csv", f"dataset.path={name}", "model=lstm", *overrides]

    return make


def with_test(text: str) -> Make:
    def make(folder: Path) -> Sequence[str]:
        (folder / "test.csv").write_text(HEADER + text)
        return table(HEADER + "".join(LINES), "dataset.test_path=test.csv")(folder)

    return make


def parquet(**columns: object) -> Make:
    def make(folder: Path) -> Sequence[str]:
        write_table(folder / "own.parquet", {"text": texts(20).texts, "label": [0, 1] * 10, **columns})
        return ["dataset=csv", "dataset.path=own.parquet", "model=lstm"]

    return make


def hub(make_folder: Callable[[Path], object], *overrides: str) -> Make:
    def make(folder: Path) -> Sequence[str]:
        make_folder(folder / "own")
        return ["dataset=hf", "dataset.path=own", "model=lstm", *overrides]

    return make


def images(change: Callable[[Path], object], per_class: int = 6) -> Make:
    def make(folder: Path) -> Sequence[str]:
        for label, name in enumerate(("cats", "dogs")):
            (folder / "own" / name).mkdir(parents=True)
            for number in range(per_class):
                pixels = image_split(1, (3, 8, 8), seed=100 * label + number).pixels[0].transpose(1, 2, 0)
                (folder / "own" / name / f"{number}.png").write_bytes(encoded_image(pixels, "PNG"))
        change(folder / "own")
        return ["dataset=imagefolder", "dataset.path=own", "dataset.size=8", "model=cnn"]

    return make


def without_classes(place: Path) -> None:
    for path in place.rglob("*.png"):
        path.unlink()
    for path in place.iterdir():
        path.rmdir()


def model(*overrides: str, **config: object) -> Make:
    """Write a folder with a tokenizer and only this config."""

    def make(folder: Path) -> Sequence[str]:
        bert()(folder)
        (folder / "bert" / "config.json").unlink()
        if config:
            (folder / "bert" / "config.json").write_text(json.dumps(config))
        return ["dataset=imdb", "model=hf", "model.pretrained=bert", *overrides]

    return make


def other_task(folder: Path) -> Sequence[str]:
    """Write the weights of an image model beside BERT's config."""
    import torch
    from safetensors.torch import save_file

    bert()(folder)
    save_file({"conv.weight": torch.zeros(3)}, folder / "bert" / "model.safetensors", metadata={"format": "pt"})
    return ["dataset=imdb", "model=hf", "model.pretrained=bert"]


def plugin(text: str) -> Make:
    """Write a module of a new name: Python imports each name once per process."""

    def make(folder: Path) -> Sequence[str]:
        name = f"hostile_plugin_{next(_NUMBERS)}"
        (folder / f"{name}.py").write_text(text)
        return ["dataset=digits", "model=cnn", f"plugins=[{name}]"]

    return make


CASES = (
    Case("no path of one's own table", lambda folder: ["dataset=csv", "model=lstm"], r"set dataset\.path=reviews\.csv"),
    Case("a path to no table", lambda folder: TABLE, r"There is no file own\.csv; set dataset\.path"),
    Case(
        "a table in a format that is not read",
        table("x", name="own.xlsx"),
        r"one of the suffixes \.csv, \.tsv, \.jsonl, \.parquet, not \.xlsx",
    ),
    Case(
        "no column of that name",
        table("review,mark\na,b\n"),
        r"own\.csv has no column 'text'; its columns are review, mark\. Name yours with dataset\.text_column",
    ),
    Case("a column of one's own twice", table("text,text,label\na,b,1\n"), r"own\.csv has several columns 'text'"),
    Case("a row of one's own with too many cells", table(HEADER + "a,b,c\n"), r"cannot be read \(.*line 2, saw 3\)"),
    Case(
        "a table of one's own in Latin-1",
        table("text,label\ncafé,1\n".encode("latin-1")),
        r"complete \.csv file in UTF-8",
    ),
    Case("a table of one's own without rows", table(HEADER), r"own\.csv has no rows"),
    Case("a table of one's own of no bytes", table(""), r"own\.csv cannot be read"),
    Case("JSON lines cut short", table('{"text": "a", "lab', name="own.jsonl"), r"own\.jsonl cannot be read"),
    Case(
        "one label only",
        table(HEADER + "a,1\nb,1\nc,1\nd,1\n"),
        r"all 4 rows have the label '1'; a classifier needs two",
    ),
    Case(
        "three rows",
        table(HEADER + "".join(LINES[:3])),
        r"own\.csv has 3 rows: to take test and validation rows .* 3 rows each",
    ),
    Case(
        "a label of one's own missing",
        table(HEADER + "".join(LINES) + "b,\n"),
        r"own\.csv, column label, row 21: the label is missing; fill it",
    ),
    Case("a label that is NaN", parquet(label=[0.0, float("nan")] * 10), r"column label, row 2: the label is missing"),
    Case("labels to regress on", parquet(label=[0.5, 1.5] * 10), r"the label 0\.5 is not a whole number.*regression"),
    Case(
        "a text of one's own missing",
        parquet(text=[None, *texts(19).texts]),
        r"column text, row 1: the text is empty",
    ),
    Case(
        "numbers for texts",
        parquet(text=list(range(20))),
        r"column text, row 1: 0 is not a text; is it the right column",
    ),
    Case(
        "a test label never seen in training",
        with_test("new,yes\nnewer,maybe\n"),
        r"test\.csv, row 2: the label 'maybe' does not occur in the training rows \(no, yes\)",
    ),
    Case(
        "an unknown split in the split column",
        table("text,label,split\na,1,train\nb,0,holdout\n"),
        r"row 2: the split 'holdout' is not one of train, .*dataset\.split_column=null",
    ),
    Case(
        "pairs for a model of words",
        table(
            "text,label,other\n" + "".join(f"{line.strip()},b {line[:8]}\n" for line in LINES),
            "dataset.text_pair_column=other",
        ),
        r"holds pairs of texts.* take model=hf or model=bert",
    ),
    Case(
        "no folder of a data set",
        lambda folder: ["dataset=hf", "dataset.path=./nowhere", "model=lstm"],
        r"no folder \./nowhere",
    ),
    Case(
        "a data set of the hub without a network",
        lambda folder: ["dataset=hf", "dataset.path=nobody/nothing", "model=lstm"],
        r"nobody/nothing is neither a folder nor in the Hugging Face cache, and the hub does not answer",
    ),
    Case("an empty folder of a data set", hub(lambda place: place.mkdir()), r"The folder own is empty"),
    Case(
        "no folder of images", lambda folder: ["dataset=imagefolder", "dataset.path=own", "model=cnn"], r"no folder own"
    ),
    Case(
        "an empty folder of images", images(without_classes), r"own is not a folder of images .* one folder per class"
    ),
    Case(
        "a class of one's own without images",
        images(lambda place: (place / "birds").mkdir()),
        r"not a folder of images .*birds",
    ),
    Case(
        "a broken image file",
        images(lambda place: (place / "cats" / "0.png").write_bytes(b"no image")),
        r"cats/0\.png cannot be decoded as an image; replace or remove the file",
    ),
    Case("two images per class", images(lambda place: None, per_class=2), r"own has 4 rows: .* 3 rows each"),
    Case("a model folder without a config", model(), r"no classifier could be loaded from bert|no usable tokenizer"),
    Case(
        "a sequence-to-sequence model",
        model(model_type="t5", d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=40),
        r"a t5 model is a sequence-to-sequence model.*take a classifier or an encoder",
    ),
    Case("a model of images", model(model_type="vit", **SIZES), r"reads pixel_values, not the token ids"),
    Case("weights of another task", other_task, r"the weights in bert lack \d+ of the model's tensors .*another model"),
    Case(
        "a network that torchvision does not have",
        lambda folder: ["dataset=digits", "model=torchvision", "model.arch=resnet19"],
        r"resnet19 is not a network of torchvision; it has \d+, such as resnet18",
    ),
    Case(
        "images too small for a network",
        lambda folder: ["dataset=digits", "model=torchvision", "model.arch=squeezenet1_0"],
        r"model\.arch=squeezenet1_0 cannot classify images of 8 × 8 pixels",
    ),
    Case(
        "no plug-in of that name",
        lambda folder: ["dataset=digits", "model=cnn", "plugins=[no_such_plugin]"],
        r"no_such_plugin: there is no such module in the current folder or on PYTHONPATH",
    ),
    Case(
        "a plug-in that raises",
        plugin("x = 1\ny = 1 / 0\n"),
        r"cannot be imported \(ZeroDivisionError in line 2: .*; correct it",
    ),
    Case("a plug-in that exits", plugin("raise SystemExit(0)\n"), r"cannot be imported \(SystemExit in line 1"),
    Case("a plug-in that is not Python", plugin("def f(:\n"), r"cannot be imported \(SyntaxError in line 1"),
    Case(
        "a plug-in that needs what is not there",
        plugin("import no_such_library\n"),
        r"needs the module no_such_library",
    ),
    Case(
        "a plug-in that takes the name of a method",
        plugin(
            "from dropattack.plugins import method\n\n\n@method('fgm')\nclass F:\n    def __init__(self, model): ...\n"
        ),
        r"is registered as reg=fgm, which exists; give it another name",
    ),
    Case(
        "a plug-in of the standard library",
        lambda folder: ["dataset=digits", "model=cnn", "plugins=[os]", "model._target_=os.system"],
        r"plugins: os is not a module of yours",
    ),
)
