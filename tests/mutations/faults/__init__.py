"""Deliberate faults by room. A new guarantee gets a fault here, so that the test of it is known to fail without it."""

from tests.mutations.faults import (
    analysis,
    data,
    gpu,
    integrations,
    methods,
    models,
    plugins,
    probes,
    regularizers,
    report,
    runs,
    statistics,
    sweeps,
    tracking,
    training,
)

ROOMS = (
    regularizers, methods, integrations, models, training, data, runs, plugins, sweeps, statistics, analysis, report,
    tracking, probes, gpu,
)  # fmt: skip
FAULTS = tuple(fault for room in ROOMS for fault in room.FAULTS)
