"""The models: `rnn.RNNClassifier`, `cnn.CNN`, `bert.Bert`.

Import the submodule you need: this package imports nothing, so that naming a model in a config costs no `import torch`.
"""
