"""The device mesh, and what is split over it; the only place that names its axes."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.path_rules import apply_rules

ROUND_AXIS, DATA_AXIS, FSDP_AXIS = "round", "data", "fsdp"
# What is split over all devices: the batch of one run, crops to be scored.
BATCH_AXES = (ROUND_AXIS, DATA_AXIS, FSDP_AXIS)

# (regular expression over the parameter path; the dimension that is split, "largest" for the
# largest that splits evenly, or None for a parameter that every device holds whole).
FsdpRules = Sequence[tuple[str, int | str | None]]


def make_mesh(data: int = -1, *, fsdp: int = 1, rounds: int = 1) -> Mesh:
    """Make a mesh with the axes `round`, `data` and `fsdp`.

    Args:
        data: devices that share the batches of a round, each with all parameters.
        fsdp: devices that share a batch and split the parameters.
        rounds: groups of devices that train rounds of their own.
            One of the three may be -1: as many as the others leave.

    Raises:
        GlpiError: more devices are asked for than there are, or numbers that do not fit them or the
            processes.
    """
    devices = jax.devices()
    sizes = {ROUND_AXIS: rounds, DATA_AXIS: data, FSDP_AXIS: fsdp}
    told = ", ".join(f"config.mesh.{axis} = {size}" for axis, size in sizes.items() if size != 1)
    told = told or "config.mesh.data = 1"
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    if len(open_axes) > 1 or any(size < 1 for size in sizes.values() if size != -1):
        raise GlpiError(
            f"{told}, but there are {len(devices)} devices: each is a positive number, and one of"
            " them may be -1 for what the others leave"
        )
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if fixed > len(devices) or (open_axes and len(devices) % fixed):
        raise GlpiError(
            f"{told}, but there are {len(devices)} devices: use -1 for what the others leave, and"
            " numbers that divide them"
        )
    if open_axes:
        sizes[open_axes[0]] = len(devices) // fixed
    shape = tuple(sizes.values())
    mesh = jax.make_mesh(
        shape,
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(shape),
        devices=devices[: math.prod(shape)],
    )
    _check_processes([[device.process_index for device in group.flat] for group in mesh.devices])
    return mesh


def _check_processes(groups: Sequence[Sequence[int]]) -> None:
    """Raise a GlpiError unless every process can read its part of every batch.

    `groups` has the processes of the devices of each round's group.
    """
    counts = [Counter(group) for group in groups]
    everyone = sum(counts, Counter())
    if len(everyone) == jax.process_count() and all(
        len(set(count.values())) == 1 for count in (everyone, *counts)
    ):
        return
    raise GlpiError(
        f"config.mesh takes from {jax.process_count()} processes unequal numbers of devices: let"
        " every process have as many, with -1 for what the others leave, and every group of"
        " config.mesh.round whole processes"
    )


def mesh_of(config: ConfigDict) -> Mesh:
    """The mesh of `config.mesh`."""
    section = config.mesh
    return make_mesh(section.data, fsdp=section.fsdp, rounds=section.round)


def parameter_shardings(
    shapes: Mapping[str, tuple[int, ...]], rules: FsdpRules, mesh: Mesh
) -> dict[str, NamedSharding]:
    """How each parameter lies on the mesh: split over `fsdp` as the rules say.

    Args:
        shapes: of all parameters by path.
        rules: without any, or without an `fsdp` axis of more than one device, all stay whole.
        mesh: from `make_mesh`.

    Raises:
        GlpiError: rules that do not fit the paths, or a dimension that is not there or does not
            split evenly.
    """
    count = mesh.shape[FSDP_AXIS]
    if not rules or count == 1:
        return dict.fromkeys(shapes, replicated(mesh))
    where = "config.mesh.fsdp_rules"
    shardings = {}
    for path, rule in apply_rules(list(shapes), rules, where).items():
        shape = shapes[path]
        if rule is None:
            shardings[path] = replicated(mesh)
            continue
        if rule == "largest":
            even = [i for i, size in enumerate(shape) if size % count == 0]
            split = max(even, key=lambda i: shape[i], default=None)
        elif isinstance(rule, int) and -len(shape) <= rule < len(shape):
            split = rule % len(shape)
            if shape[split] % count:
                raise GlpiError(
                    f"{where}: dimension {rule} of {path} {shape} does not split evenly over"
                    f" config.mesh.fsdp = {count}"
                )
        else:
            raise GlpiError(f"{where}: {path} {shape} has no dimension {rule!r}")
        spec = [FSDP_AXIS if i == split else None for i in range(len(shape))]
        shardings[path] = NamedSharding(mesh, PartitionSpec(*spec))
    return shardings


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch_size(
    batch_size: int, mesh: Mesh, key: str, *, parts: int = 1, of_round: bool = False
) -> None:
    """Raise a GlpiError naming the config key unless a batch splits evenly over its devices.

    Args:
        batch_size: of the whole batch.
        mesh: all its devices share the batch, or those of a round.
        key: of the config, for the message.
        parts: that the batch is computed in; each has to split.
        of_round: it is the batch of one round of several.
    """
    devices = mesh.size // (mesh.shape[ROUND_AXIS] if of_round else 1)
    if batch_size % (devices * parts):
        in_parts = f", in {parts} parts," if parts > 1 else ""
        raise GlpiError(
            f"{key} = {batch_size}{in_parts} does not split evenly over {devices} devices"
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


def check_rounds(rounds: int, mesh: Mesh) -> None:
    """Raise a GlpiError unless the mesh's groups can share the rounds."""
    groups = mesh.shape[ROUND_AXIS]
    if rounds % groups:
        raise GlpiError(
            f"{rounds} rounds do not split evenly over config.mesh.round = {groups} groups of"
            " devices"
        )
    if mesh.shape[FSDP_AXIS] > 1:
        raise GlpiError(
            f"config.mesh.fsdp = {mesh.shape[FSDP_AXIS]} with config.mesh.round = {groups}: rounds"
            " side by side hold their parameters whole; take 1 for one of the two"
        )


def round_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis counts rounds."""
    return NamedSharding(mesh, PartitionSpec(ROUND_AXIS))


def place_in_round(number: int, rounds: int, mesh: Mesh) -> tuple[int, int] | None:
    """This process's place among those that share a round, and how many they are; None without one.

    Args:
        number: of the round, from 0.
        rounds: how many there are; each group of devices has as many of them, in order.
        mesh: from `make_mesh`.
    """
    groups = mesh.shape[ROUND_AXIS]
    devices = mesh.devices[number // (rounds // groups)].flat
    processes = sorted({device.process_index for device in devices})
    if jax.process_index() not in processes:
        return None
    return processes.index(jax.process_index()), len(processes)


def rounds_to_devices(
    own: Sequence[dict[str, np.ndarray] | None], active: Sequence[bool], mesh: Mesh
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Make global arrays (R, B, …) from this process's rows of the rounds that it shares.

    Args:
        own: of each round the rows that this process has read; None where it has no devices.
        active: of each round.
        mesh: from `make_mesh`.

    Returns:
        The batches, split by round and then over the group, and `active` (R,) bool, split by round.
    """
    sharding = NamedSharding(mesh, PartitionSpec(ROUND_AXIS, (DATA_AXIS, FSDP_AXIS)))
    first = next(number for number, rows in enumerate(own) if rows is not None)
    batches: dict[str, jax.Array] = {}
    for name, sample in (own[first] or {}).items():
        _, sharing = place_in_round(first, len(own), mesh) or (0, 1)
        shape = (len(own), len(sample) * sharing, *sample.shape[1:])
        shard = functools.partial(_shard_of_rounds, name, own, sharding, shape)
        batches[name] = jax.make_array_from_callback(shape, sharding, shard)
    flags = np.asarray(active)
    on: jax.Array = jax.make_array_from_callback(
        flags.shape, round_sharding(mesh), lambda i: flags[i]
    )
    return batches, on


def _shard_of_rounds(
    name: str,
    own: Sequence[dict[str, np.ndarray] | None],
    sharding: NamedSharding,
    shape: tuple[int, ...],
    index: tuple[slice, ...],
) -> np.ndarray:
    """A device's part: rows of its group's rounds; this process's rows lie in order of devices."""
    rounds, (begin, end, _) = index[0].indices(len(own)), index[1].indices(shape[1])
    indices = sharding.addressable_devices_indices_map(shape).values()
    begins = sorted(
        each[1].start or 0 for each in indices if each and each[0].indices(len(own)) == rounds
    )
    local = begins.index(begin) * (end - begin)
    chosen = [own[number] for number in range(*rounds)]
    return np.stack([rows[name][local : local + end - begin] for rows in chosen if rows])


def run_each_round(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Apply a function of one round's trees to trees with an axis of rounds in front.

    Each group of devices runs its own rounds, one after the other, and none communicates with
    another; within a group the compiler splits the work as the batch is split.
    """

    def own_rounds(*trees: Any) -> Any:
        if all(len(leaf) == 1 for leaf in jax.tree.leaves(trees)):
            result = function(*jax.tree.map(lambda x: x[0], trees))
            return jax.tree.map(lambda x: x[None], result)
        return jax.lax.map(lambda each: function(*each), trees)

    by_round = PartitionSpec(ROUND_AXIS)
    return jax.shard_map(
        own_rounds,
        mesh=mesh,
        in_specs=by_round,
        out_specs=by_round,
        axis_names={ROUND_AXIS},
        check_vma=False,
    )
