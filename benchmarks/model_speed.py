"""Speed of the train step or of scoring, on this machine's GPU or CPU, against PyTorch if asked.

    python benchmarks/model_speed.py --what train --batch 8 32 --dtype float32 bfloat16 [--torch]
                                     [--model glpi_s16] [--attention matmul|xla|cudnn]
                                     [--accumulation N] [--steps N] [--chain N]
                                     [--peak TFLOPS …] [--json FILE]

For each dtype and batch: milliseconds a step (median, least and most of `--steps`), images a
second, seconds to lower and compile, peak memory, FLOPs of a step by hand (`flops.py`) and by XLA's
cost analysis, and MFU: FLOPs by hand, a second, of the peak. `--steps 0` compiles alone.

The step is the one that `glpi train` and `glpi score` run, with the official recipe's freezing and
random weights, on one device and on a batch that lies there already: no decoding, no copying.
`--chain` steps are dispatched one behind the other before each is waited for, as in training.

The peak is that of a product of square matrices (8192 on a GPU, 2048 on the CPU) in the same dtype
unless `--peak` gives it. float32 is computed as JAX does by default, in TF32 on NVIDIA GPUs that
have it, also by PyTorch here; `JAX_DEFAULT_MATMUL_PRECISION=highest` changes JAX alone.

Peak memory is the device's own count on a GPU, and on the CPU the resident peak of the process
after it has compiled.

`--torch` races the PyTorch model of tests/interop/torch_glpi.py, eager, in PyTorch's own layout and
in channels_last, under bfloat16 autocast where bfloat16 is asked for on a GPU (on the CPU it stays
float32). Each side is a process of its own, and they step in turn, so that what else the machine
does slows all of them; before each measurement a side takes a step that is not timed.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from glpi_jax.core.files import write_json
from glpi_jax.models.glpi import SIZES
from glpi_jax.models.vit import ATTENTIONS

WORKER = Path(__file__).with_name("speed_worker.py")
ROOT = WORKER.parents[1]
# A side's threads go on spinning for a moment, which would slow the next one.
PAUSE_SECONDS = 0.05
# Prefixes of the environment's variables that change the figures.
SETTINGS = ("XLA_", "JAX_", "GLIBC_TUNABLES")


class SideFailed(Exception):
    """A side could not go on; says why."""


class Side:
    """A worker process."""

    def __init__(self, **spec: Any):
        environment = {
            key: x for key, x in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"
        }
        # The sides share a GPU.
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        paths = (str(ROOT), environment.get("PYTHONPATH", ""))
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if "GLPI_BENCHMARK_STDERR" in os.environ else subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        try:
            self.facts: dict[str, Any] = self._answer()
        except SideFailed:
            self.stop()
            raise

    def step_ms(self) -> float:
        """Milliseconds of one more measurement."""
        with contextlib.suppress(BrokenPipeError):  # what it said last tells why
            self._process.stdin.write("step\n")
            self._process.stdin.flush()
        return self._answer()

    def end(self) -> dict[str, Any]:
        """End the process; returns its peak memory."""
        self._process.stdin.close()
        return self._answer()

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise SideFailed(f"the process ended with status {self._process.wait()}")
        value = json.loads(line)
        if isinstance(value, dict) and "error" in value:
            raise SideFailed(value["error"])
        return value


def measure(specs: dict[str, dict[str, Any]], steps: int) -> dict[str, dict[str, Any]]:
    """Run sides in turn; returns the figures of each by name, {"error": …} of those that failed."""
    sides: dict[str, Side] = {}
    figures: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = {}
    try:
        for name, spec in specs.items():
            try:
                sides[name] = Side(**spec)
                figures[name], times[name] = dict(sides[name].facts), []
            except SideFailed as error:
                figures[name] = {"error": str(error)}
        for _ in range(steps):
            for name, side in sides.items():
                if "error" in figures[name]:
                    continue
                try:
                    times[name].append(side.step_ms())
                except SideFailed as error:
                    figures[name] = {"error": str(error)}
                if len(sides) > 1:
                    time.sleep(PAUSE_SECONDS)
        for name, side in sides.items():
            if "error" not in figures[name]:
                figures[name] |= side.end()
    finally:
        for side in sides.values():
            side.stop()
    for name, own in times.items():
        if own and "error" not in figures[name]:
            figures[name] |= {
                "ms_median": statistics.median(own),
                "ms_min": min(own),
                "ms_max": max(own),
                "ms": own,
            }
    return figures


def measure_peak(dtype: str) -> dict[str, Any]:
    """What the device is, and the TFLOP/s of a matrix product in a dtype."""
    figures = measure({"peak": {"kind": "peak", "dtype": dtype, "chain": 4, "steps": 1}}, 8)["peak"]
    if "error" in figures:
        raise SystemExit(f"no peak in {dtype}: {figures['error']}")
    flops = 2 * figures["matmul_side"] ** 3
    return {**figures, "tflops": flops / figures["ms_min"] / 1e9}


def measure_model(
    options: argparse.Namespace, dtype: str, batch: int, peak: dict[str, Any]
) -> dict[str, Any]:
    """All figures of one dtype and batch."""
    common = {
        "what": options.what,
        "model": options.model,
        "size": dataclasses.asdict(SIZES[options.model]),
        "batch": batch,
        "dtype": dtype,
        "steps": options.steps,
        "chain": options.chain,
        "platform": "cpu" if peak["platform"] == "cpu" else "gpu",
    }
    specs = {
        "jax": {
            **common,
            "kind": "jax",
            "attention": options.attention,
            "accumulation": options.accumulation,
        }
    }
    if options.torch:
        specs["torch"] = {**common, "kind": "torch", "channels_last": False}
        specs["torch channels_last"] = {**common, "kind": "torch", "channels_last": True}
    sides = measure(specs, options.steps)
    for figures in sides.values():
        if "ms_median" in figures:
            figures["images_per_second"] = 1e3 * batch / figures["ms_median"]
    own = sides["jax"]
    if "ms_median" in own:
        own["tflops"] = own["flops_by_hand"] / own["ms_median"] / 1e9
        own["mfu"] = own["tflops"] / peak["tflops"]
    run = {"dtype": dtype, "batch": batch, "peak_tflops": peak["tflops"], "sides": sides}
    others = [x["ms_median"] for name, x in sides.items() if name != "jax" and "ms_median" in x]
    if others and "ms_median" in own:
        run["times_as_fast_as_torch"] = min(others) / own["ms_median"]
    return run


def print_run(run: dict[str, Any]) -> None:
    """One line for each side."""
    for name, figures in run["sides"].items():
        head = f"{run['dtype']:>8}  batch {run['batch']:4d}  {name:<20}"
        if "error" in figures:
            print(f"{head}  failed: {figures['error']}", flush=True)
            continue
        cells = []
        if "ms_median" in figures:
            cells.append(
                f"{figures['ms_median']:9.1f} ms ({figures['ms_min']:.1f}–{figures['ms_max']:.1f})"
                f"  {figures['images_per_second']:8.1f} images/s"
            )
            peak = figures["peak_device_bytes"] or figures["peak_resident_bytes"]
            cells.append(f"{peak / 1e9:6.2f} GB" if peak else "memory unknown")
        if name == "jax":
            gflops = [figures["flops_by_hand"], figures["flops_by_xla"]]
            hand, xla = (f"{x / 1e9 / run['batch']:.2f}" if x else "unknown" for x in gflops)
            if "mfu" in figures:
                cells.append(f"MFU {figures['mfu']:.1%} of {run['peak_tflops']:.3g} TFLOP/s")
            cells.append(f"compiled in {figures['compile_seconds']:.1f} s")
            cells.append(f"GFLOP an image: {hand} by hand, {xla} by XLA")
        print(head + "  ".join(cells), flush=True)
    if "times_as_fast_as_torch" in run:
        print(f"{'':>24}{run['times_as_fast_as_torch']:.2f}× as fast as the faster PyTorch")


def machine() -> dict[str, Any]:
    """What the figures depend on, but for the device."""
    names = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_before": os.getloadavg()[0],
        "versions": versions,
        "environment": {k: v for k, v in os.environ.items() if k.startswith(SETTINGS)},
    }


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--what", choices=("train", "score"), required=True)
    parser.add_argument("--model", choices=SIZES, default="glpi_s16")
    parser.add_argument("--batch", type=int, nargs="+", default=[8], help="images a step")
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--attention", choices=ATTENTIONS, default="matmul", help="of the ViT")
    parser.add_argument("--accumulation", type=int, default=1, help="parts of a training batch")
    parser.add_argument("--steps", type=int, default=10, help="measurements (default 10)")
    parser.add_argument("--chain", type=int, default=1, help="steps a measurement (default 1)")
    parser.add_argument("--torch", action="store_true", help="race the PyTorch model")
    parser.add_argument(
        "--peak", type=float, nargs="+", metavar="TFLOPS", help="for each --dtype; else measured"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.peak and len(options.peak) != len(options.dtype):
        parser.error("--peak needs a number for each --dtype")
    if min(options.batch) < 1 or options.chain < 1 or options.steps < 0:
        parser.error("--batch and --chain are positive, --steps is not negative")
    if any(batch % options.accumulation for batch in options.batch):
        parser.error("--accumulation must divide each --batch")
    if options.torch and not options.steps:
        parser.error("--torch needs --steps")
    return options


def main() -> None:
    """Measure, print, and write the figures where --json says."""
    options = arguments()
    result = {"command": shlex.join(sys.argv), **machine()}
    result |= {key: str(x) if isinstance(x, Path) else x for key, x in vars(options).items()}
    peaks: dict[str, dict[str, Any]] = {}
    for i, dtype in enumerate(options.dtype):
        peaks[dtype] = measure_peak(dtype)
        if options.peak:
            peaks[dtype] |= {"tflops": options.peak[i], "given": True}
    result["peaks"] = peaks
    device = peaks[options.dtype[0]]["device"]
    print(f"{options.what} {options.model} on {device} ({result['processor']})", flush=True)
    result["runs"] = []
    for dtype in options.dtype:
        for batch in options.batch:
            run = measure_model(options, dtype, batch, peaks[dtype])
            print_run(run)
            result["runs"].append(run)
    timed = [run for run in result["runs"] if "ms_median" in run["sides"]["jax"]]
    if timed:
        best = max(timed, key=lambda run: run["sides"]["jax"]["images_per_second"])
        speed = best["sides"]["jax"]["images_per_second"]
        result["best"] = {
            "dtype": best["dtype"],
            "batch": best["batch"],
            "images_per_second": speed,
            "mfu": best["sides"]["jax"]["mfu"],
        }
        print(f"best: {speed:.1f} images/s in {best['dtype']} at batch {best['batch']}")
    if options.json:
        write_json(options.json, result)
    if any("error" in side for run in result["runs"] for side in run["sides"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
