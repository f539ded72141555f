"""What a finished run's weights say beyond accuracy: landscapes, flatness, gradients, robustness, calibration.

Import the submodule you need: this package imports nothing.
"""
