"""``snn-dendrite demo``: train point, dendritic and learned-dynamics networks on handwritten digits, in both hosts."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..suggest import one_of
from .terminal import USAGE, check_output, console, fail, heading, show_table

if TYPE_CHECKING:
    from ..demo.studies import Result

__all__ = ["command", "run_demo"]

_HOSTS = ("spikingjelly", "snntorch")
_NEEDS = {  # module -> what it is for, pip extra
    "sklearn": ("the handwritten digits", "demo"),
    "matplotlib": ("the picture", "plot"),
}


def command(
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs per network; default: each study's own.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="First seed, of weights and batches.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run.")] = 1,
    out: Annotated[Path, typer.Option(help="The picture: .png, .pdf or .svg.")] = Path("snn-dendrite-demo.png"),
    quick: Annotated[bool, typer.Option("--quick", help="One epoch on 200 images: only to see that it runs.")] = False,
    host: Annotated[str, typer.Option(help="spikingjelly, snntorch, or all.")] = "all",
) -> None:
    """Train point and dendritic networks on handwritten digits.

    Prints a table, saves a picture. SpikingJelly: an MS-ResNet of its model zoo, and copies converted with sdp.convert.
    snnTorch: an nn.Sequential with snn.Leaky, snn.Dendritic and snn.LNM. Networks of a host share their seed, start
    weights, batches and epochs.

    Example: snn-dendrite demo --host snntorch --seeds 3
    """
    try:
        one_of("--host", host, (*_HOSTS, "all"))
    except ValueError as error:
        fail(str(error), code=USAGE)
    check_output("--out", out, (".png", ".pdf", ".svg"))
    hosts = available_hosts(host)
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small networks gain little from more, and figures do not depend on their number
    try:
        run_demo(console(), hosts, epochs, range(seed, seed + seeds), out, quick)
    finally:
        torch.set_num_threads(threads)


def available_hosts(wanted: str) -> list[str]:
    """The hosts to run; ends the command where one that was asked for, or something all need, is missing."""
    for module, (purpose, extra) in _NEEDS.items():
        if importlib.util.find_spec(module) is None:
            fail(f'{purpose} need {module}, which is not installed: pip install "snn-dendrite-plugin[{extra}]"')
    asked = list(_HOSTS) if wanted == "all" else [wanted]
    found = [name for name in asked if importlib.util.find_spec(name) is not None]
    if not found:
        extra = "all" if wanted == "all" else wanted
        names = " and ".join(asked)
        are = "are" if len(asked) > 1 else "is"
        fail(f'{names} {are} not installed: pip install "snn-dendrite-plugin[{extra}]"')
    for name in asked:
        if name not in found:
            console(stderr=True).print(
                f'{name} is left out, as it is not installed: pip install "snn-dendrite-plugin[{name}]"', markup=False
            )
    return found


def run_demo(
    out: Console, hosts: Sequence[str], epochs: int | None, seeds: Sequence[int], picture: Path, quick: bool = False
) -> list[Result]:
    """Train every network of every host with every seed, print the table, save the picture; return the results."""
    from ..demo.picture import draw
    from ..demo.studies import NEURONS, STUDIES, load_digits, train

    digits = load_digits(300 if quick else None)
    out.print(
        f"{len(digits.train_labels)} digits of 8 x 8 pixels to train on, {len(digits.validation_labels)} to validate "
        f"on (scikit-learn's); chance is 10 %"
    )
    results: list[Result] = []
    for name in hosts:
        study = STUDIES[name]()
        count = 1 if quick else epochs or study.epochs
        heading(out, f"{name}: {study.network}, {study.input}, {count} epoch{'s' if count > 1 else ''}")
        batches = -(-len(digits.train_labels) // study.batch) * count
        with _progress(out, batches) as track:
            for seed in seeds:
                for neuron in NEURONS:
                    with track(f"{neuron}, seed {seed}") as step:
                        results.append(train(study, neuron, digits, count, seed, step))
        _show_start(out, [r for r in results if r.host == name])
    heading(out, "On the validation images, after the last epoch")
    _show(out, results, len(digits.validation_labels))
    draw(picture, [r for r in results if r.seed == seeds[0]], digits)
    out.print(f"Picture: {picture}", markup=False)
    return results


@contextmanager
def _progress(out: Console, batches: int) -> Iterator[Callable[[str], Any]]:
    """``track(label)``, a context that gives ``step(loss)``: a moving bar on a terminal, a line when done elsewhere."""
    if not out.is_terminal:

        @contextmanager
        def plain(label: str) -> Iterator[Callable[[float], None]]:
            last = [float("nan")]
            yield lambda loss: last.__setitem__(0, loss)
            out.print(f"  {label}: {batches} batches, last loss {last[0]:.3f}")

        yield plain
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("  {task.description:18}"), BarColumn(20), TextColumn("{task.percentage:3.0f} %"),
               TextColumn("{task.fields[loss]:10}"), TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=out) as bars:

        @contextmanager
        def moving(label: str) -> Iterator[Callable[[float], None]]:
            task = bars.add_task(label, total=batches, loss="")  # none is known yet
            yield lambda loss: bars.update(task, advance=1, loss=f"loss {loss:.3f}")

        yield moving


def _show_start(out: Console, results: list[Result]) -> None:
    """Whether the networks computed the same before training, as conversion promises."""
    for neuron in list(dict.fromkeys(r.neuron for r in results))[1:]:
        group = [r for r in results if r.neuron == neuron]
        spikes, flips = sum(r.start_spikes for r in group), sum(r.start_flips for r in group)
        out.print(f"  before training, {flips} spikes of {neuron} differ from the point network's {spikes:,}")


def _show(out: Console, results: list[Result], images: int) -> None:
    rows = []
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.host, result.neuron), []).append(result)
    for (host, neuron), group in groups.items():
        rows.append(
            [
                host,
                neuron,
                _spread([100 * r.accuracy for r in group], 1),
                _spread([r.spikes for r in group], 3),
                f"{group[0].parameters:,}",
                _spread([r.seconds for r in group], 1),
            ]
        )
    columns = ["host", "neuron", "accuracy %", "spikes per neuron", "parameters", "seconds"]
    show_table(out, columns, rows, right=columns[2:])
    seeds = len(next(iter(groups.values())))
    if seeds == 1:
        widths = []
        for host in dict.fromkeys(r.host for r in results):
            mean = statistics.fmean(r.accuracy for r in results if r.host == host)
            width = 196 * (2 * mean * (1 - mean) / images) ** 0.5  # 95 %, of a difference of independent proportions
            widths.append(f"{max(width, 100 / images):.1f} in {host}")
        out.print(
            f"One seed, {images} images: accuracies less than about so many points apart are not told apart: "
            f"{', '.join(widths)}; --seeds runs more."
        )
    else:
        out.print(f"Mean and standard deviation over {seeds} seeds; the {images} images are the same in all of them.")
    out.print("Spikes are per neuron and image, seconds are of training.")


def _spread(values: list[float], digits: int) -> str:
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"
