"""Probes of a finished run's weights: landscapes, flatness, gradients, robustness, calibration.

This package imports nothing; import the submodule you need.
"""
