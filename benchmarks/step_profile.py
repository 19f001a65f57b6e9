"""Where the time of a train step goes: milliseconds by part of the model and kind of operation.

    python benchmarks/step_profile.py [--model glpi_s16] [--batch N] [--dtype float32] [--steps N]
                                      [--longest N] [--json FILE]

Traces a few steps, which are those of `model_speed.py --what train`, and adds up what each
operation of the compiled program takes: a Markdown table, and the operations that take the longest.

On the CPU the trace has of convolutions and large products only that they were handed to other
threads; what a step takes on the clock beyond the table is theirs.
"""

import argparse
import re
import shlex
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np

from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.core.files import write_json
from glpi_jax.distributed.mesh import make_mesh, to_devices
from glpi_jax.models.glpi import SIZES, build
from glpi_jax.training.loop import make_recipe
from glpi_jax.training.state import abstract_state, create_state
from glpi_jax.training.step import compile_train_step

# The first that is found in an operation's path names its part.
PARTS = {
    "clfe": "CNN branch",
    "vgfe": "ViT branch",
    "cwsa": "CWSA",
    "siem": "SIEM",
    "": "the rest, optimizer",
}
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = .*? ([\w-]+)\(.*$")
PATH = re.compile(r'op_name="([^"]*)"')
OF_OTHERS = ("call", "while", "conditional")  # hold operations that are traced themselves


def compile_step(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The compiled step, its state and its batch."""
    config = load_config(shipped_config("base"))
    mesh = make_mesh(1)
    model = build(options.model, dropout=config.model.dropout, dtype=options.dtype)
    recipe = make_recipe(config, model, mesh)
    parts = (model, recipe.optimizer, recipe.multipliers)
    rng = np.random.default_rng(0)
    crops = (options.batch, model.size.crop, model.size.crop, 3)
    batch = to_devices(
        {
            "image": rng.integers(0, 256, crops, np.uint8),
            "score": rng.uniform(1, 5, options.batch).astype(np.float32),
            "example": np.arange(options.batch, dtype=np.int32),
        },
        mesh,
    )
    step = compile_train_step(*parts, mesh, loss=recipe.loss)
    compiled = step.lower(abstract_state(*parts, mesh=mesh), batch).compile()
    return compiled, create_state(*parts, seed=0, mesh=mesh), batch


def operations_of(program: str) -> dict[str, tuple[str, str]]:
    """Name → (part, kind) of each operation in a compiled program's text."""
    found = {}
    for line in program.splitlines():
        match = INSTRUCTION.match(line)
        if match and match[2] not in OF_OTHERS:
            path = PATH.search(line)
            found[match[1]] = (_part(path[1] if path else ""), _kind(match[2], line))
    return found


def _part(path: str) -> str:
    return next(part for key, part in PARTS.items() if key in path)


def _kind(opcode: str, line: str) -> str:
    if opcode in ("convolution", "dot", "custom-call"):
        return "convolutions and products"
    if opcode in ("copy", "transpose", "bitcast"):
        return "copies"
    return "reductions" if "reduce" in line.partition("=")[0] else "elementwise"


def milliseconds_of(folder: Path, operations: dict[str, tuple[str, str]]) -> Counter[str]:
    """Operation → milliseconds in all of a trace."""
    (file,) = folder.rglob("*.xplane.pb")
    total: Counter[str] = Counter()
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in operations:
                    total[event.name] += event.duration_ns / 1e6
    return total


def main() -> None:
    """Trace, print, and write the figures where --json says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=SIZES, default="glpi_s16")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=3, help="traced steps (default 3)")
    parser.add_argument("--longest", type=int, default=10, help="operations to list (default 10)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    compiled, state, batch = compile_step(options)
    operations = operations_of(compiled.as_text())
    clock = []
    for _ in range(2 + options.steps):
        begin = time.perf_counter()
        state, outputs = compiled(state, batch)
        outputs["loss"].block_until_ready()
        clock.append(1e3 * (time.perf_counter() - begin))
    milliseconds = statistics.median(clock[2:])
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(options.steps):
                state, outputs = compiled(state, batch)
                outputs["loss"].block_until_ready()
        total = milliseconds_of(Path(folder), operations)
    each = {name: value / options.steps for name, value in total.items()}
    cells: Counter[tuple[str, str]] = Counter()
    for name, value in each.items():
        cells[operations[name]] += value
    kinds = sorted({kind for _, kind in cells})
    print(f"| ms a step | {' | '.join(kinds)} | all |")
    print(f"|---|{'---|' * (len(kinds) + 1)}")
    for part in PARTS.values():
        row = [cells[part, kind] for kind in kinds]
        print(f"| {part} | {' | '.join(f'{x:.0f}' for x in row)} | {sum(row):.0f} |")
    sums = [sum(cells[part, kind] for part in PARTS.values()) for kind in kinds]
    print(f"| all | {' | '.join(f'{x:.0f}' for x in sums)} | {sum(sums):.0f} |")
    beyond = milliseconds - sum(sums)
    print(f"\n{milliseconds:.0f} ms a step on the clock, {beyond:.0f} ms of it beyond these\n")
    for name, value in Counter(each).most_common(options.longest):
        print(f"{value:8.1f} ms  {name}  {', '.join(operations[name])}")
    if options.json:
        table = {f"{part}, {kind}": value for (part, kind), value in cells.items()}
        settings = {"command": shlex.join(sys.argv), "device": jax.devices()[0].device_kind}
        settings |= {"ms_on_the_clock": milliseconds, "ms": table}
        write_json(options.json, {**settings, "ms_of_operations": each})


if __name__ == "__main__":
    main()
