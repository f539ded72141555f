"""Batches: every row once per epoch, resumable, shared by processes, little padding, equal augmentation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dropattack.batch import Batch
from dropattack.data import loader
from dropattack.data.loader import Loader, cropped
from dropattack.data.types import TensorSplit
from tests.data.makers import image_split, joined, padding_share, token_split

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=120)
EPOCHS = st.integers(0, 3)


def image_tensors(count=20, shape=(3, 8, 8)):
    split = image_split(count, shape)
    return TensorSplit(torch.from_numpy(split.pixels), torch.from_numpy(split.labels))


def ids(batch):
    """Return the rows of `token_split` in a batch."""
    return (batch.inputs["input_ids"][:, 0] - 1).tolist()


def equal(one, other):
    names = one.inputs.keys()
    assert names == other.inputs.keys()
    return torch.equal(one.labels, other.labels) and all(torch.equal(one.inputs[n], other.inputs[n]) for n in names)


@given(LENGTHS, st.integers(1, 17), st.booleans(), st.booleans(), EPOCHS, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_row_once_and_trimmed(lengths, size, shuffle, bucket, epoch, seed):
    loader = Loader(token_split(lengths), batch_size=size, shuffle=shuffle, bucket=bucket, seed=seed)
    batches = list(loader.batches(epoch))
    whole, rest = divmod(len(lengths), size)
    sizes = [size] * whole + [rest] * (rest > 0)
    if rest == 1 < size and whole:
        sizes[-2:] = [size + 1]
    assert sorted(joined(map(ids, batches))) == list(range(len(lengths)))
    assert len(loader) == len(batches)
    assert sorted(len(batch.labels) for batch in batches) == sorted(sizes)
    for batch, rows in zip(batches, loader.rows(epoch), strict=True):
        assert ids(batch) == rows.tolist()
        assert batch.inputs["lengths"].tolist() == [lengths[row] for row in rows]
        assert batch.labels.tolist() == [row % 2 for row in rows]
        assert batch.inputs["input_ids"].shape == (len(rows), batch.inputs["lengths"].max())
        assert batch.inputs["input_ids"].dtype == torch.int64
        if bucket:
            assert (batch.inputs["lengths"].diff() <= 0).all()


@given(LENGTHS, st.integers(1, 9), EPOCHS, st.data())
@settings(max_examples=40, deadline=None)
def test_start_resumes(lengths, size, epoch, data):
    make = lambda: Loader(token_split(lengths), batch_size=size, seed=3)  # noqa: E731
    whole = list(make().batches(epoch))
    start = data.draw(st.integers(0, len(whole)))
    rest = list(make().batches(epoch, start))
    assert len(rest) == len(whole) - start
    assert all(map(equal, whole[start:], rest))


@given(st.integers(1, 5), LENGTHS, st.integers(1, 9), EPOCHS)
@settings(max_examples=60, deadline=None)
def test_processes_share_each_batch(world, lengths, size, epoch):
    lengths = [*lengths, *range(1, world + 1)]
    size = max(size, world)
    split = token_split(lengths)
    parts = [list(Loader(split, batch_size=size, rank=r, world=world).batches(epoch)) for r in range(world)]
    assert len({len(part) for part in parts}) == 1  # or a process would wait for ever
    together = [joined(map(ids, batch)) for batch in zip(*parts, strict=True)]
    assert sorted(joined(together)) == list(range(len(lengths)))
    assert all(ids(batch) for part in parts for batch in part)
    rest = len(lengths) % size
    assert size < 2 * world or min(len(ids(part[-1])) for part in parts) > 1 or len(lengths) < 2 * world
    if rest == 0 or rest >= min(2 * world, size):
        alone = [ids(batch) for batch in Loader(split, batch_size=size).batches(epoch)]
        assert [sorted(batch) for batch in together] == [sorted(batch) for batch in alone]


@pytest.mark.parametrize(
    ("rows", "size", "wanted"), [(17, 16, [17]), (33, 16, [16, 17]), (18, 16, [16, 2]), (3, 1, [1, 1, 1])]
)
def test_no_last_batch_of_one_row(rows, size, wanted):
    """BatchNorm cannot train on one value per channel."""
    assert [len(batch.labels) for batch in Loader(token_split(range(1, rows + 1)), batch_size=size).batches()] == wanted


def test_epochs_and_seeds_differ():
    split = token_split(range(1, 60))
    orders = {
        tuple(joined(map(ids, Loader(split, batch_size=4, seed=seed).batches(epoch))))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_rows_meet_others_in_the_next_epoch():
    split = token_split([1 + row % 7 for row in range(400)])
    loader = Loader(split, batch_size=20)
    one, two = ({frozenset(rows.tolist()) for rows in loader.rows(epoch)} for epoch in (0, 1))
    assert not one & two


def test_bucketing_saves_padding():
    rng = np.random.default_rng(0)
    split = token_split(rng.integers(1, 256, 3000).tolist())
    bucketed, plain = (padding_share(Loader(split, batch_size=16, bucket=bucket)) for bucket in (True, False))
    assert bucketed < 0.1 < 0.3 < plain
    assert padding_share(Loader(split, batch_size=16, shuffle=False)) < 0.01


def test_evaluation_can_be_mapped_back():
    lengths = [3, 9, 1, 7, 7]
    texts = Loader(token_split(lengths), batch_size=2, shuffle=False)
    rows = np.concatenate(texts.rows())
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    images = Loader(image_tensors(5), batch_size=2, shuffle=False)
    assert np.concatenate(images.rows()).tolist() == list(range(5))


def test_pixels_are_normalised():
    split = image_tensors()
    mean, std = split.pixel_statistics
    pixels = split.inputs.float() / 255
    assert torch.allclose(torch.tensor(mean), pixels.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(torch.tensor(std), pixels.std((0, 2, 3), correction=0), atol=1e-6)
    (batch,) = Loader(split, batch_size=20, shuffle=False, mean=mean, std=std).batches()
    assert batch.inputs["pixels"].dtype == torch.float32
    assert torch.allclose(batch.inputs["pixels"].mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(batch.inputs["pixels"].std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    (plain,) = Loader(split, batch_size=20, shuffle=False).batches()
    assert torch.allclose(plain.inputs["pixels"], pixels)


def test_preconverted_pixels_are_the_same(monkeypatch):
    split = image_tensors()
    mean, std = split.pixel_statistics
    ready = Loader(split, batch_size=6, seed=1, mean=mean, std=std)
    monkeypatch.setattr(loader, "READY_BYTES", 0)
    each_time = Loader(split, batch_size=6, seed=1, mean=mean, std=std)
    for one, other in zip(ready.batches(), each_time.batches(), strict=True):
        assert torch.equal(one.inputs["pixels"], other.inputs["pixels"])
        assert torch.equal(one.labels, other.labels)
    assert split.inputs.dtype == torch.uint8, "the split itself is not touched"


@given(st.integers(0, 4), st.integers(0, 4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_cropped_is_pad_crop_flip(y, x, flip):
    """Compared with slicing one image."""
    image = torch.arange(2 * 6 * 5).view(1, 2, 6, 5)
    made = cropped(image, torch.tensor([[y, x]]), torch.tensor([flip]), 2)
    expected = torch.nn.functional.pad(image, (2, 2, 2, 2))[:, :, y : y + 6, x : x + 5]
    assert torch.equal(made, expected.flip(-1) if flip else expected)


def test_augmentation_is_a_function_of_seed_epoch_and_batch():
    split = image_tensors(24, (3, 16, 16))
    make = lambda **options: Loader(split, batch_size=8, augment="crop_flip", **options)  # noqa: E731
    one = list(make().batches(1))
    assert all(map(equal, one, make().batches(1)))
    assert equal(one[2], next(make().batches(1, start=2)))
    assert not equal(one[0], next(make().batches(2)))
    assert not equal(one[0], next(make(seed=1).batches(1)))
    halves = [list(make(rank=rank, world=2).batches(1)) for rank in (0, 1)]
    for whole, even, odd in zip(one, *halves, strict=True):
        assert torch.equal(whole.inputs["pixels"][0::2], even.inputs["pixels"])
        assert torch.equal(whole.inputs["pixels"][1::2], odd.inputs["pixels"])


def test_shift_never_mirrors():
    pixels = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    pixels[:, :, :, 3] = 100  # a line left of a line: mirrored, they would change sides
    pixels[:, :, :, 4] = 200
    split = TensorSplit(pixels, torch.zeros(64, dtype=torch.int64))
    seen = {}
    for augment in ("shift", "crop_flip"):
        (batch,) = Loader(split, batch_size=64, augment=augment).batches()
        row = batch.inputs["pixels"][:, 0, 4]
        mirrored = (row[:, :-1] > row[:, 1:]) & (row[:, 1:] > 0)
        seen[augment] = int(mirrored.any(1).sum())
    assert seen["shift"] == 0
    assert 16 < seen["crop_flip"] < 48


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"augment": "rotate"}, "augment='rotate'"),
        ({"mean": [0.5]}, "go together"),
        ({"rank": 2, "world": 2}, "rank=2"),
        ({"batch_size": 2, "world": 3}, "batch_size=2"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        Loader(image_tensors(), **{"batch_size": 4, **options})


def test_options_of_the_other_kind():
    with pytest.raises(ValueError, match=r"for images"):
        Loader(token_split([1, 2]), batch_size=1, augment="shift")
    with pytest.raises(ValueError, match=r"start=3"):
        Loader(token_split([1, 2]), batch_size=1).batches(0, start=3)


@pytest.mark.gpu
def test_device_and_host_agree(monkeypatch):
    import dropattack.data.loader as module

    for limit in (module.RESIDENT_BYTES, 0):  # resident, and pinned
        monkeypatch.setattr(module, "RESIDENT_BYTES", limit)
        for split, options in ((token_split(range(1, 50)), {}), (image_tensors(), {"augment": "crop_flip"})):
            host, device = (Loader(split, batch_size=8, device=d, **options) for d in ("cpu", "cuda"))
            for one, other in zip(host.batches(), device.batches(), strict=True):
                assert other.labels.is_cuda
                assert equal(one, Batch({name: x.cpu() for name, x in other.inputs.items()}, other.labels.cpu()))
