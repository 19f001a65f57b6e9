"""What splitting the train step over devices costs in bytes: on 1, 2, 4, 8 virtual CPU devices.

    python benchmarks/scaling.py [--model glpi_demo] [--batch N] [--devices 1 2 4 8] [--steps N]
                                 [--json FILE]

The same global batch data-parallel (`config.mesh.data`: each device holds the whole state) and
fully sharded (`config.mesh.fsdp`: parameters and their optimizer state are split by the config's
rules), each number of devices in a process of its own. For each: bytes of state that a device
holds, what XLA plans to hold on a device during a step, and the results of the step's collectives
(all-reduce, all-gather, reduce-scatter and what else moves data) in bytes a device, once each.
Those inside of a loop count once, and there are none there without accumulation.

The virtual devices share this machine's cores: the milliseconds say only that the step runs, and
nothing about the speed-up on real devices. Bytes and memory are those that real devices have, up
to how XLA's other backends choose among the collectives.
"""

import argparse
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from glpi_jax.core.files import write_json
from glpi_jax.models.glpi import SIZES

ROOT = Path(__file__).resolve().parents[1]
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
VALUE_BITS = {"pred": 8, "bf16": 16, "f16": 16}  # others say their own: f32, s32, u8
# The result's shape, or a tuple of them, and the operation; `-done` of a pair counts no more.
OPERATION = re.compile(rf"= (\(?[^=]*?) ({'|'.join(COLLECTIVES)})(-start)?\(")
COMMENT = re.compile(r"/\*.*?\*/")  # the number of every fifth element of a tuple
SHAPE = re.compile(r"([a-z]+[0-9]*)\[([0-9,]*)\]")


def collectives(program: str) -> dict[str, dict[str, int]]:
    """Number and bytes of the results of a compiled program's collectives, by operation."""
    found: dict[str, dict[str, int]] = {}
    for shapes, operation, start in OPERATION.findall(COMMENT.sub("", program)):
        sizes = [_bytes(*shape) for shape in SHAPE.findall(shapes)]
        # An all-gather that starts gives its operands and its results.
        if start and operation in ("all-gather", "collective-permute"):
            sizes = sizes[len(sizes) // 2 :]
        own = found.setdefault(operation, {"count": 0, "bytes": 0})
        own["count"] += 1
        own["bytes"] += sum(sizes)
    return found


def _bytes(dtype: str, dimensions: str) -> int:
    bits = VALUE_BITS.get(dtype) or int(re.sub(r"\D", "", dtype))
    return math.prod(int(side) for side in dimensions.split(",") if side) * bits // 8


def measure_here(model_name: str, devices: int, way: str, batch: int, steps: int) -> dict[str, Any]:
    """Figures of one mesh, in a process that has as many devices."""
    import jax
    import numpy as np

    from glpi_jax.core.config import load_config, shipped_config
    from glpi_jax.distributed.mesh import make_mesh, to_devices
    from glpi_jax.models.glpi import build
    from glpi_jax.training.loop import make_recipe
    from glpi_jax.training.state import create_state
    from glpi_jax.training.step import compile_train_step

    config = load_config(shipped_config("base"))
    mesh = make_mesh(devices) if way == "data" else make_mesh(1, fsdp=devices)
    model = build(model_name, dropout=config.model.dropout)
    recipe = make_recipe(config, model, mesh)
    parts = (model, recipe.optimizer, recipe.multipliers)
    rules = config.mesh.fsdp_rules
    state = create_state(*parts, seed=0, mesh=mesh, fsdp_rules=rules)
    rng = np.random.default_rng(0)
    side = model.size.crop
    rows = {
        "image": rng.integers(0, 256, (batch, side, side, 3), np.uint8),
        "score": rng.uniform(1, 5, batch).astype(np.float32),
        "example": np.arange(batch, dtype=np.int32),
    }
    rows = to_devices(rows, mesh)
    begin = time.perf_counter()
    step = compile_train_step(*parts, mesh, loss=recipe.loss, fsdp_rules=rules)
    compiled = step.lower(state, rows).compile()
    compile_seconds = time.perf_counter() - begin
    plan = compiled.memory_analysis()
    shards = [leaf.addressable_shards[0].data for leaf in jax.tree.leaves(state)]
    moved = collectives(compiled.as_text())
    figures = {
        "compile_seconds": compile_seconds,
        "state_bytes": sum(shard.nbytes for shard in shards),
        "planned_bytes": plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        + plan.temp_size_in_bytes
        - plan.alias_size_in_bytes,
        "collectives": moved,
        "collective_bytes": sum(each["bytes"] for each in moved.values()),
    }
    times, losses = [], []
    for _ in range(1 + steps):
        begin = time.perf_counter()
        state, outputs = compiled(state, rows)
        losses.append(float(outputs["loss"]))
        times.append(1e3 * (time.perf_counter() - begin))
    return {**figures, "ms_median": statistics.median(times[1:]), "ms": times[1:], "losses": losses}


def measure(options: argparse.Namespace, devices: int, way: str) -> dict[str, Any]:
    """Figures of one mesh, from a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    flags = (environment.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={devices}")
    paths = (str(ROOT), environment.get("PYTHONPATH", ""))
    environment |= {
        "XLA_FLAGS": " ".join(flags).strip(),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }
    task = json.dumps([options.model, devices, way, options.batch, options.steps])
    command = [sys.executable, __file__, "--measure-here", task]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {"devices": devices, "mesh": way, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Measure, print, and write the figures where --json says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=SIZES, default="glpi_demo")
    parser.add_argument("--batch", type=int, default=32, help="of all devices (default 32)")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=5, help="timed steps (default 5)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--measure-here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_here:
        print(json.dumps(measure_here(*json.loads(options.measure_here))))
        return
    if any(devices < 1 or options.batch % devices for devices in options.devices):
        parser.error("--batch must split evenly over each number of --devices")
    if options.steps < 1:
        parser.error("--steps is positive")

    runs = []
    print(f"{options.model}, global batch {options.batch}; virtual devices: no speed-up to be seen")
    line = "{:>7}  {:>5}  {:>9}  {:>10}  {:>14}  {:>9}  {}"
    print(line.format("devices", "mesh", "state MB", "planned MB", "collectives MB", "ms", ""))
    for devices in options.devices:
        for way in ("data", "fsdp") if devices > 1 else ("data",):
            run = measure(options, devices, way)
            runs.append(run)
            megabytes = [
                f"{run[key] / 1e6:.2f}"
                for key in ("state_bytes", "planned_bytes", "collective_bytes")
            ]
            kinds = ", ".join(
                f"{own['count']} {name} {own['bytes'] / 1e6:.2f} MB"
                for name, own in run["collectives"].items()
            )
            print(
                line.format(devices, way, *megabytes, f"{run['ms_median']:.1f}", kinds), flush=True
            )
    if options.json:
        settings = {"command": shlex.join(sys.argv), "cores": len(os.sched_getaffinity(0))}
        settings |= {"model": options.model, "batch": options.batch, "steps": options.steps}
        write_json(options.json, {**settings, "runs": runs})


if __name__ == "__main__":
    main()
