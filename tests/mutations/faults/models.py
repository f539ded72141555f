"""Faults in dropattack/models."""

from tests.mutations.fault import Fault

FAULTS = (
    Fault("models/rnn.py", "A padded LSTM classifies by the state after the padding.",
          "return _at(states, lengths - 1)",
          "return states[:, -1]", "tests/models/test_rnn.py"),
    Fault("models/rnn.py", "Max pooling over time takes states of the padding.",
          "states.masked_fill(padding[..., None], -math.inf).amax(dim=1)",
          "states.amax(dim=1)", "tests/models/test_rnn.py"),
    Fault("models/encoders.py", "Layers that should be frozen are trained.",
          "layers[: len(layers) - trainable].requires_grad_(False)",
          "layers[: len(layers) - trainable]", "tests/models/test_bert.py"),
    Fault("models/rnn.py", "Max pooling of a packed text takes a zero from its padding.",
          "batch_first=True, padding_value=-math.inf)",
          "batch_first=True, padding_value=0.0)", "tests/models/test_rnn.py"),
    Fault("models/rnn.py", "Packed texts get each other's states.",
          ".flatten(1).index_select(0, order.argsort())",
          ".flatten(1)", "tests/models/test_rnn.py"),
    Fault("models/rnn.py", "A network of two layers classifies by its first.",
          "h[-directions:]",
          "h[:directions]", "tests/models/test_rnn.py"),
    Fault("models/rnn.py", "The direction from right to left reads the padding first.",
          "self._one_direction(_permute(x, flip), back)",
          "self._one_direction(x.flip(1), back)", "tests/models/test_rnn.py"),
    Fault("models/rnn.py", "The padding row of the embedding starts with noise.",
          "weight[self.embed.padding_idx] = 0.0",
          "pass", "tests/models/test_rnn.py"),
    Fault("models/rnn.py", "Words without a pretrained vector get the row of zeros of the file.",
          "weight[rows] = vectors[rows].to(weight)",
          "weight[:] = vectors.to(weight)", "tests/models/test_rnn.py"),
)  # fmt: skip
