"""The models: `rnn.RNNClassifier`, `cnn.CNN`, `cifarnet.CifarNet`, `bert.Bert`.

Import the submodule you need: this package imports nothing, so naming a model in a config does not import torch.
"""
