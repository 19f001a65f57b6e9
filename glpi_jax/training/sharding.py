"""The device mesh: the only place that names its axes."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from glpi_jax.errors import GlpiError

DATA_AXIS = "data"


def make_mesh(data: int) -> Mesh:
    """Make a mesh with one axis, `data`.

    Args:
        data: devices along the axis; -1 takes all of them.

    Raises:
        GlpiError: more devices are asked for than there are.
    """
    devices = jax.devices()
    count = len(devices) if data == -1 else data
    if not 1 <= count <= len(devices):
        raise GlpiError(
            f"config.mesh.data = {data}, but there are {len(devices)} devices: "
            "use -1 for all of them"
        )
    return jax.make_mesh(
        (count,), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices[:count]
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds whole: parameters, statistics, optimizer state."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_batch_size(batch_size: int, mesh: Mesh, key: str) -> None:
    """Raise a GlpiError naming the config key unless the batch splits evenly over the mesh."""
    if batch_size % mesh.shape[DATA_AXIS]:
        raise GlpiError(
            f"{key} = {batch_size} does not split evenly over {mesh.shape[DATA_AXIS]} devices"
        )


def local_rows(array: jax.Array) -> np.ndarray:
    """The rows of a batch that this process has given, in its order, from a `batch_sharding`."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def to_devices(rows: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Make global arrays from the rows that this process has read."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in rows.items()
    }
