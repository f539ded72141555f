"""A killed and resumed run gives the same weights, history and best weights, bit for bit."""

import errno
import json
import signal

import pytest
import torch
from test_averaging import SETTINGS
from test_loop import METHODS, same_weights
from torch import nn
from toys import CLASSES, ToyNet, toy_loaders, toy_train

from dropattack.data.loader import Loader
from dropattack.data.types import TensorSplit
from dropattack.errors import AlreadyRunningError, Interrupted
from dropattack.regularizers import Compose, Identity
from dropattack.training.checkpoint import Checkpoints, Snapshot
from dropattack.training.device import make_accelerator
from dropattack.training.lock import locked
from dropattack.training.loop import Trainer


def history(result):
    """Return the parts of a result that the seed determines: everything except times."""
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in result.history]


class KillerLoader:
    """Send this process a signal just before reading the `after`-th batch."""

    def __init__(self, loader, after: int, number=signal.SIGTERM):
        self.loader, self.after, self.number = loader, after, number

    def __len__(self):
        return len(self.loader)

    def batches(self, epoch=0, start=0):
        for batch in self.loader.batches(epoch, start):
            self.after -= 1
            if self.after == 0:
                signal.raise_signal(self.number)
            yield batch


def interrupted_train(tmp_path, *, train_after=0, validation_after=0, number=signal.SIGTERM, **options):
    """Train until the signal, then resume from the checkpoint."""
    train_loader, validation = toy_loaders()
    loaders = KillerLoader(train_loader, train_after, number), KillerLoader(validation, validation_after, number)
    with pytest.raises(Interrupted) as stopped:
        toy_train(loaders=loaders, checkpoints=Checkpoints(tmp_path), **options)
    assert stopped.value.exit_code == 128 + number
    snapshot = Checkpoints(tmp_path).load()
    # Another seed: everything must come from the checkpoint.
    model, result = toy_train(seed=77, checkpoints=Checkpoints(tmp_path), resume=snapshot, **options)
    return model, result, snapshot


def composed(model):
    return Compose(METHODS["dropattack"](model), METHODS["rdrop"](model))


@pytest.mark.parametrize(("method", "optimizer"), [
    ("none", "sgd"), ("fgm", "adam"), ("dropattack", "adam"), ("dropattack", "sgd"), ("rdrop", "adam"),
    ("dropattack+rdrop", "adam"),
    *(pytest.param(m, o, marks=pytest.mark.slow) for m, o in (("none", "adam"), ("fgm", "sgd"), ("rdrop", "sgd"))),
])  # fmt: skip
def test_resume_in_mid_epoch(tmp_path, method, optimizer):
    reg = {**METHODS, "dropattack+rdrop": composed}[method]
    options = {"reg": reg, "optimizer": optimizer, "schedule": "cosine", "warmup": 0.1}
    straight, whole = toy_train(**options)
    model, result, snapshot = interrupted_train(tmp_path, train_after=14, **options)
    assert snapshot.step == 14
    assert snapshot.state["progress"]["batch"] == 4
    assert same_weights(straight, model)
    assert history(whole) == history(result)
    assert whole.best == result.best
    assert all(torch.equal(whole.best_weights[name], value) for name, value in result.best_weights.items())


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("train_after", "validation_after"), [
    (4, 0), (0, 10), *(pytest.param(*rest, marks=pytest.mark.slow) for rest in ((14, 0), (25, 0))),
])  # fmt: skip
def test_resume_with_averages_and_mixup(tmp_path, settings, train_after, validation_after):
    """Before averaging has begun and after it, and within an evaluation of averaged weights."""
    options = {"reg": METHODS["fgm"], "schedule": "cosine", **SETTINGS[settings]}
    straight, whole = toy_train(**options)
    model, result, _ = interrupted_train(
        tmp_path, train_after=train_after, validation_after=validation_after, **options
    )
    assert same_weights(straight, model)
    assert history(whole) == history(result)
    assert whole.best == result.best
    assert all(torch.equal(whole.best_weights[name], value) for name, value in result.best_weights.items())


@pytest.mark.parametrize(("train_after", "validation_after"), [(1, 0), (10, 0), (0, 2), (0, 4), (30, 0)])
def test_resume_at_boundaries(tmp_path, train_after, validation_after):
    """After the first step, an epoch's last step, within an evaluation, and after the final step."""
    straight, whole = toy_train()
    model, result, _ = interrupted_train(tmp_path, train_after=train_after, validation_after=validation_after)
    assert same_weights(straight, model)
    assert history(whole) == history(result)


def test_resume_with_accumulation_and_max_steps(tmp_path):
    options = {"accumulation": 3, "max_steps": 7}
    straight, whole = toy_train(**options)
    model, result, _ = interrupted_train(tmp_path, train_after=15, **options)
    assert same_weights(straight, model)
    assert history(whole) == history(result)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals(tmp_path, number):
    before = signal.getsignal(number)
    interrupted_train(tmp_path, train_after=3, number=number)
    assert signal.getsignal(number) is before


def test_second_interrupt_stops_at_once():
    from dropattack.training.signals import Signals

    with Signals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_finished_run_resumes_without_steps(tmp_path):
    """Killed between the last epoch and the test, a run has its weights and repeats no step."""
    _, whole = toy_train(checkpoints=Checkpoints(tmp_path))
    _, result = toy_train(seed=9, checkpoints=Checkpoints(tmp_path), resume=Checkpoints(tmp_path).load())
    assert result.steps == whole.steps
    assert history(result) == history(whole)
    assert all(torch.equal(whole.best_weights[name], value) for name, value in result.best_weights.items())


def snapshot(step: int, best_epoch: int = 1) -> Snapshot:
    torch.manual_seed(step)
    weight = torch.randn(4, 3)
    state = {
        "weights": {"a": weight, "view": weight[1:], "transposed": weight.T, "empty": torch.zeros(0)},
        "scalar": torch.tensor(3.5),
        "by number": {0: (1, 2.5, None), 1: [True, "x", float("inf")]},
        "$odd": {"key": torch.arange(3, dtype=torch.uint8)},
    }  # fmt: skip
    return Snapshot(step, state, {"best": torch.full((2,), float(best_epoch))})


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return a == b and type(a) is type(b)


def test_round_trip(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None
    checkpoints.save(snapshot(1))
    checkpoints.save(snapshot(2))
    loaded = Checkpoints(tmp_path).load()
    assert loaded.step == 2
    assert equal(loaded.state, snapshot(2).state)
    assert equal(loaded.best, snapshot(2).best)
    assert len(list(tmp_path.iterdir())) == 1


def test_unchanged_best_weights_are_linked(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    first = checkpoints.save(snapshot(1), best_version=1) / "best.safetensors"
    inode = first.stat().st_ino
    assert (checkpoints.save(snapshot(2), best_version=1) / "best.safetensors").stat().st_ino == inode
    assert (checkpoints.save(snapshot(3), best_version=2) / "best.safetensors").stat().st_ino != inode


def test_unsupported_values_are_refused(tmp_path):
    with pytest.raises(TypeError, match="/bad"):
        Checkpoints(tmp_path).save(Snapshot(1, {"bad": object()}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors", "best.safetensors"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "flip the last", "remove"])
def test_a_broken_checkpoint_is_skipped(tmp_path, capsys, name, damage):
    checkpoints = Checkpoints(tmp_path)
    good = checkpoints.save(snapshot(1))
    keep = tmp_path / "keep"
    good.rename(keep)
    broken = checkpoints.save(snapshot(2))
    keep.rename(good)
    file = broken / name
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        data[-2 if damage == "flip the last" else len(data) // 2] ^= 1  # a value; in the middle, mostly the header
        file.write_bytes(data[: len(data) // 2] if damage == "truncate" else data)
    assert Checkpoints(tmp_path).load().step == 1
    assert "broken" in capsys.readouterr().err


def test_a_failed_save_leaves_the_older_checkpoint(tmp_path, monkeypatch, capsys):
    """A full disk costs a checkpoint, not the training."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(snapshot(1))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dropattack.training.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(snapshot(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001-1"]
    _, result = toy_train(checkpoints=Checkpoints(tmp_path / "other"), epochs=1)
    assert result.status == "finished"
    assert "no space left" in capsys.readouterr().err


def test_older_checkpoints_stay_until_the_new_one_was_read_back(tmp_path, monkeypatch):
    """On a disk that loses what it was given."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(snapshot(1))

    def lose(folder):
        (folder / "step-00000002-1" / "tensors.safetensors").write_bytes(b"")

    monkeypatch.setattr("dropattack.training.checkpoint.sync_folder", lose)
    with pytest.raises(ValueError, match="cut short"):
        checkpoints.save(snapshot(2))
    assert Checkpoints(tmp_path).load().step == 1


def test_saving_takes_at_most_its_share(tmp_path, monkeypatch):
    """Use a clock on which a batch takes one second and a checkpoint ten."""
    now, saved = [0.0], []

    class Clock:
        monotonic = process_time = staticmethod(lambda: now[0])

    class SlowLoader(KillerLoader):
        def batches(self, epoch=0, start=0):
            for batch in super().batches(epoch, start):
                now[0] += 1
                yield batch

    class SlowCheckpoints(Checkpoints):
        def save(self, snapshot, **options):
            now[0] += 10
            saved.append(snapshot.step)

    monkeypatch.setattr("dropattack.training.loop.time", Clock)
    train_loader, validation = toy_loaders()
    loaders = SlowLoader(train_loader, 0), validation
    options = {"loaders": loaders, "epochs": 25, "checkpoints": SlowCheckpoints(tmp_path)}
    toy_train(**options, share=0.1)
    assert saved == [10, 110, 210]
    saved.clear()
    toy_train(**options, share=0.1, every_epochs=0, every_minutes=1.6)
    assert saved == [96, 196]
    saved.clear()
    toy_train(**options)
    assert len(saved) == 25


def test_leftovers_of_a_kill_are_removed_by_the_next_save(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for leftover in (".step-00000001-1.123", ".old-step-00000001-1", "step-00000001-1"):
        (tmp_path / leftover).mkdir()
    checkpoints.save(snapshot(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002-1"]


def test_only_the_best_weights_remain_at_the_end(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(snapshot(1))
    (tmp_path / ".best.123").write_text("a kill left this")
    checkpoints.keep({"w": torch.ones(2)}, {"run_id": "x"}, {"predicted": torch.zeros(3)})
    assert Checkpoints(tmp_path).load().step == 1
    checkpoints.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.json", "best.safetensors", "predictions.npz"]
    assert json.loads((tmp_path / "best.json").read_text()) == {"run_id": "x"}


def test_lock(tmp_path):
    path = tmp_path / "run" / "lock"
    with locked(path), pytest.raises(AlreadyRunningError, match="another process"), locked(path):
        pass
    with locked(path):
        pass


def test_a_signal_during_the_exchange_waits_for_the_next(monkeypatch):
    """Processes stop after the same step: a signal that arrives while they exchange signals is exchanged later."""
    model = ToyNet()
    trainer = Trainer(model, Identity(model), *toy_loaders(), accelerator=make_accelerator(device="cpu"),
                      classes=CLASSES, epochs=1, learning_rate=0.1)  # fmt: skip
    exchanged = []

    def gather(numbers):
        exchanged.append(numbers.item())
        trainer.signals.number = signal.SIGTERM
        return numbers

    monkeypatch.setattr(trainer, "_alone", False)
    monkeypatch.setattr(trainer.accelerator, "gather", gather)
    trainer._check_signals()
    with pytest.raises(Interrupted, match="SIGTERM"):
        trainer._check_signals()
    assert exchanged == [0, signal.SIGTERM]


def token_split(rows: int, seed: int) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (rows,), generator=generator)
    ids = torch.arange(rows)[:, None] * 10 + torch.arange(8)
    return TensorSplit(ids.masked_fill(torch.arange(8) >= lengths[:, None], 0), torch.arange(rows) % CLASSES, lengths)


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.EmbeddingBag(1000, CLASSES)

    def forward(self, input_ids, lengths):
        return self.embed(input_ids)


# The situations of Accelerate's report #2823 (another order of the data after a resumption within an epoch), of
# Lightning's tests of mid-epoch checkpoints, and of Transformers' tests that resume with accumulation.
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("after", [1, 6, 11, 13])
def test_the_batches_after_a_resumption_are_those_of_the_unbroken_run(tmp_path, after, accumulation):
    """With our own loader, which shuffles and sorts by length within each epoch."""

    class Seen(KillerLoader):
        def __init__(self, after):
            super().__init__(Loader(token_split(50, 0), batch_size=10, seed=3), after)
            self.ids = []

        def batches(self, epoch=0, start=0):
            for batch in super().batches(epoch, start):
                self.ids.append(batch.inputs["input_ids"][:, 0].tolist())
                yield batch

    def train(loader, **options):
        validation = Loader(token_split(20, 1), batch_size=20, shuffle=False)
        return toy_train(Bag(), loaders=(loader, validation), accumulation=accumulation, **options)

    whole, first, rest = Seen(0), Seen(after), Seen(0)
    train(whole)
    with pytest.raises(Interrupted):
        train(first, checkpoints=Checkpoints(tmp_path))
    snapshot = Checkpoints(tmp_path).load()
    train(rest, resume=snapshot)
    done = 5 * snapshot.state["progress"]["epoch"] + snapshot.state["progress"]["batch"]
    assert first.ids[:done] + rest.ids == whole.ids
    assert len(set(map(tuple, whole.ids))) == 15
