"""For tests that start processes of their own."""

import socket
from collections.abc import Mapping


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def with_devices(environment: Mapping[str, str], devices: int) -> dict[str, str]:
    """The environment of a process with so many devices.

    Its programs are not optimised: compiling takes most of a short run, and the sums are the same.
    """
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return {**environment, "XLA_FLAGS": flags}
