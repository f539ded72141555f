"""No test here may use a network, whatever the machine's settings."""

import pytest


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    import dropattack.data.cifar10
    import dropattack.data.hub
    import dropattack.data.mnist

    for module in (dropattack.data.hub, dropattack.data.mnist, dropattack.data.cifar10):
        monkeypatch.setattr(module, "reachable", lambda url, timeout=4.0: False)
