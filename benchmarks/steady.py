"""Whether training stays as it is: memory, time a step and compilations over thousands of steps.

    python benchmarks/steady.py [--steps 2000] [--batch 4] [--model glpi_demo] [--json FILE]
                                [--growth-mb MB]

Takes the training loop's step on batches that its pipeline reads from generated JPEGs in a
temporary folder. One line for each window of 200 steps: resident memory of the process at its end,
and the median milliseconds a step, with the wait for the batch. Exits with status 1 if

- resident memory grows by more than `--growth-mb` (default 4) a window, on average after the first
  two windows, which fill the pipeline and the allocator;
- the median step of the last quarter takes over 1.25 times that of the second quarter;
- anything is compiled after the second step.
"""

import argparse
import os
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
from input_pipeline import make_database

from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.core.files import write_json
from glpi_jax.distributed.mesh import make_mesh, to_devices
from glpi_jax.models.glpi import SIZES, build
from glpi_jax.training.loop import make_batches, make_recipe
from glpi_jax.training.state import create_state
from glpi_jax.training.step import compile_train_step

COMPILED = "/jax/core/compile/backend_compile_duration"  # an event of jax.monitoring
WINDOW = 200
SLOWER = 1.25
IMAGES = 16


def resident_bytes() -> int:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure, print, judge, and write the figures where --json says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=2000, help=f"multiple of {WINDOW}, from 800")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--model", choices=SIZES, default="glpi_demo")
    parser.add_argument("--growth-mb", type=float, default=4.0, help="allowed a window (default 4)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.steps % WINDOW or options.steps < 4 * WINDOW:
        parser.error(f"--steps must be a multiple of {WINDOW}, and at least {4 * WINDOW}")

    compiled_at: list[int] = []  # the steps in which something was compiled
    step = 0

    def listen(event: str, *_: object, **__: object) -> None:
        if event == COMPILED:
            compiled_at.append(step)

    jax.monitoring.register_event_duration_secs_listener(listen)
    config = load_config(shipped_config("base"))
    config.model.name, config.train.batch_size = options.model, options.batch
    mesh = make_mesh(1)
    model = build(options.model, dropout=config.model.dropout)
    recipe = make_recipe(config, model, mesh)
    parts = (model, recipe.optimizer, recipe.multipliers)
    train_step = compile_train_step(*parts, mesh, loss=recipe.loss)
    state = create_state(*parts, seed=0, mesh=mesh)

    times: list[float] = []
    windows = []
    with tempfile.TemporaryDirectory() as folder:
        database = make_database(Path(folder, "files"), IMAGES)
        batches = make_batches(config, model, database, range(len(database)))
        print("   steps  resident MB  median ms", flush=True)
        for step in range(1, options.steps + 1):
            begin = time.perf_counter()
            state, outputs = train_step(state, to_devices(next(batches), mesh))
            jax.block_until_ready(outputs)
            times.append(1e3 * (time.perf_counter() - begin))
            if step % WINDOW == 0:
                median = statistics.median(times[-WINDOW:])
                resident = resident_bytes()
                windows.append({"steps": step, "resident_bytes": resident, "ms_median": median})
                print(f"{step:8d}  {resident / 1e6:11.1f}  {median:9.1f}", flush=True)
        batches.close()

    settled = [window["resident_bytes"] for window in windows[1:]]
    growth = (settled[-1] - settled[0]) / (len(settled) - 1)
    quarter = options.steps // 4
    slower = statistics.median(times[-quarter:]) / statistics.median(times[quarter : 2 * quarter])
    late = [at for at in compiled_at if at > 2]
    faults = []
    if growth > options.growth_mb * 1e6:
        faults.append(f"memory grows by {growth / 1e6:.1f} MB in {WINDOW} steps")
    if slower > SLOWER:
        faults.append(f"the last quarter's steps take {slower:.2f} times the second quarter's")
    if late:
        faults.append(
            f"{len(late)} programs were compiled after the second step, from {late[0]} on"
        )
    print(
        f"memory grows by {growth / 1e6:+.2f} MB a window; last quarter {slower:.2f} × the second;"
        f" {len(compiled_at)} compilations, {len(late)} after the second step"
    )
    if options.json:
        result = {"command": shlex.join(sys.argv), "model": options.model, "batch": options.batch}
        result |= {
            "windows": windows,
            "growth_bytes_a_window": growth,
            "last_quarter_to_second": slower,
            "compiled_at_steps": compiled_at,
            "faults": faults,
        }
        write_json(options.json, result)
    if faults:
        raise SystemExit("not steady: " + "; ".join(faults))


if __name__ == "__main__":
    main()
