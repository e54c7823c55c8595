"""`python -m models`: trunks and published models as tables; `python -m models NAME`: one of them."""

from __future__ import annotations

from operators.command_line import Parser, begin, conclude, console

if __name__ == "__main__":
    begin()  # before torch is imported

import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from rich.console import Console
from rich.table import Table

from models.presets import PRESETS, names, preset
from models.published import MODELS
from models.published.entry import PublishedModel
from models.spec import MixerSpec, StageMixers
from operators.__main__ import as_written, short_number, table
from operators.errors import InputError, check_choice


def mixer_text(spec: MixerSpec) -> str:
    """A mixer with its parameters and its shell's switches, in one line."""
    shell = dict(spec.shell) if isinstance(spec.shell, dict) else {"name": spec.shell}
    switches = [f"shell={shell.pop('name', 'common')}", *(f"shell.{key}={as_written(v)}" for key, v in shell.items())]
    return " ".join([spec.name, *(f"{key}={as_written(value)}" for key, value in spec.params.items()), *switches])


def mixer_names(mixers: StageMixers) -> str:
    """The mixers' names, each once, in the order of the stages."""
    return " + ".join(dict.fromkeys(spec.name for stage in mixers.stages for spec in stage))


def macs_text(model: PublishedModel) -> str:
    """MACs as the authors print them, or as they were counted (without a star)."""
    return "–" if model.macs is None else f"{model.macs:g}G{'' if model.macs_counted else ' *'}"


def print_models(screen: Console) -> None:
    """The trunks for any mixer, and the published models, without making any of them."""
    shapes = [
        (name, type(spec).__name__.removesuffix("Spec"), *(" ".join(map(str, part)) for part in _shape(spec)))
        for name, spec in PRESETS.items()
    ]
    screen.print(table("Trunks for any mixer", ("model", "kind", "channels", "blocks"), shapes))
    rows = [
        (
            name,
            model.title,
            mixer_names(model.mixers),
            f"{model.parameters:,}",
            macs_text(model),
            "–" if model.score is None else f"{model.score:g}",
            model.measure,
            model.source,
        )
        for name, model in MODELS.items()
    ]
    columns = ("model", "title", "mixers", "parameters", "MACs", "score", "of what", "source")
    screen.print(table("Published models: the authors' figures", columns, rows, right=columns[3:6]))
    screen.print("* FLOPs or MACs as printed by the authors, whose counters differ; the others were counted.")


def _shape(spec: Any) -> tuple[Sequence[int], Sequence[int]]:
    return spec.dims, spec.stage_depths


def print_model(screen: Console, name: str) -> None:
    """What one model is: its shape, its mixers, and for a published one what it costs here and there."""
    spec, model = preset(name), MODELS.get(name)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("trunk", " ".join(f"{f.name}={as_written(getattr(spec, f.name))}" for f in fields(spec)))
    facts.add_row("channels", " ".join(map(str, spec.dims)))
    facts.add_row("blocks", " ".join(map(str, spec.stage_depths)))
    if model is None:
        screen.print(f"{name}: a trunk for any mixer", style="bold")
        screen.print(facts)
        return
    for number, stage in enumerate(model.mixers.stages):
        facts.add_row(f"mixers of stage {number}", "\n".join(map(mixer_text, stage)))
    facts.add_row("source", model.source)
    if model.score is not None:
        facts.add_row("score", f"{model.score:g} ({model.measure})")
    facts.add_row("parameters", f"{model.parameters:,} (the authors' model)")
    facts.add_row("MACs", f"{macs_text(model)}{'' if model.macs_counted else ' as printed'}")
    screen.print(f"{name}: {model.title}", style="bold")
    screen.print(facts)

    import torch  # only a model of its own says what it costs here

    from models.factory import create

    shape: dict[str, Any] = {
        "image_size": model.image_size,
        "in_channels": model.in_channels,
        "num_classes": model.num_classes,
    }
    with torch.device("meta"):
        cost = create(name, **shape).cost()
    side = "×".join(map(str, model.image_size))
    screen.print(
        f"Here, for images of {model.in_channels}×{side}: {cost.parameters:,} parameters, {short_number(cost.macs)} "
        f"MACs, of which mixers {short_number(cost.mixer_macs)}."
    )
    for deviation in model.deviations:
        parts = [f"{deviation.parameters:+,} parameters"] if deviation.parameters else []
        parts += [f"{deviation.macs:+g}G MACs"] if deviation.macs else []
        screen.print(f"  {', '.join(parts)}: {deviation.reason}")
    if model.compared:
        screen.print(f"  compared with the authors' whole model, weights copied: {model.compared}")
    for note in model.notes:
        screen.print(f"  {note}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit status 0, or 2 for wrong input."""
    parser = Parser(prog="python -m models", description="The trunks, and the published models, that there are.")
    parser.add_argument("model", nargs="?", metavar="NAME", help="describe this one")
    out = console(markup=False, highlight=False)
    try:
        arguments = parser.parse_args(argv)
        if arguments.model is None:
            print_models(out)
        else:
            print_model(out, check_choice("model", arguments.model, names()))
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    conclude(main)
