"""Flags made of the settings' declarations, grouped in the help, completed in the shell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from somatlas.models.names import ADAPTERS, DEFAULT_MODEL
from somatlas.runs import fields
from somatlas.runs.declaration import shown
from somatlas.runs.fields import FIELDS, REDONE, STAGES, Stage

MODEL_TEXT = f"MODEL is {DEFAULT_MODEL} if not given."
SUMMARIES: Mapping[Stage, str] = {
    "represent": "Residual-stream vectors of the train prompts, at every layer.",
    "layers": "Choose the layer to cut.",
    "map": "Train the map on the harmful vectors and make directions of it.",
    "search": "Search which directions to ablate together.",
    "ablate": "Replies to the test prompts: base, single direction, chosen directions.",
    "judge": "Judge the replies and print the table.",
    "cost": "What each ablation costs: drift, length, repetition, perplexity, tasks.",
    "atlas": "Geometry, neurons and stability of a judged run, for the report.",
}
_CARRIED_OUT = "How it is carried out"  # settings that decide nothing
_OTHERS = "Others"

Function = Callable[..., Any]


class SectionedOption(click.Option):
    """A flag that stands under a heading in the help."""

    def __init__(self, *arguments: Any, section: str = _OTHERS, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose flags are listed by section, in the order in which they were declared."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record:
                section = getattr(parameter, "section", _OTHERS)
                sections.setdefault(section, []).append(record)
        for section in sorted(sections, key=lambda name: name == _OTHERS):  # the others last
            with formatter.section(section):
                formatter.write_dl(sections[section])


class SectionedGroup(click.Group):
    """A group whose commands are listed by section. sections : heading -> names of commands."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.sections: dict[str, list[str]] = {}

    def add_section(self, heading: str, commands: Mapping[Any, click.Command]) -> None:
        """Add commands below a heading."""
        self.sections[heading] = list(commands)
        for name, command in commands.items():
            self.add_command(command, name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in self.sections.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(map(len, self.commands))
        for heading, names in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(n.ljust(longest), self.commands[n].get_short_help_str(200)) for n in names]
                )


def settings_of(*stages: Stage) -> Callable[[Function], Function]:
    """A flag for every setting of the stages and for those of none, --config, and MODEL."""

    def decorate(function: Function) -> Function:
        wanted = [name for name in FIELDS if name != "model" and _concerns(name, stages)]
        wanted.sort(key=lambda name: _place(FIELDS[name].stage))
        for decorator in reversed([*(_flag(name, _section(name)) for name in wanted), _config]):
            function = decorator(function)
        return click.argument("model", required=False, shell_complete=models)(function)

    return decorate


def settings_named(sections: Mapping[str, Sequence[str]]) -> Callable[[Function], Function]:
    """A flag for every setting that is named, by heading, --config, and MODEL."""

    def decorate(function: Function) -> Function:
        flags = [_flag(name, section) for section, own in sections.items() for name in own]
        for decorator in reversed([*flags, _config]):
            function = decorator(function)
        return click.argument("model", required=False, shell_complete=models)(function)

    return decorate


def option(*names: str, section: str = _OTHERS, **more: Any) -> Callable[[Function], Function]:
    """`click.option` below a heading."""
    return click.option(*names, cls=SectionedOption, section=section, **more)


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that the user gave."""
    return {name: value for name, value in flags.items() if value is not None}


def folders(_ctx: click.Context, _parameter: click.Parameter, text: str) -> list[CompletionItem]:
    """Completes a folder, such as a run's."""
    return [CompletionItem(text, type="dir")]


def _concerns(name: str, stages: tuple[Stage, ...]) -> bool:
    """Whether stages read a setting. Those of no stage say how any of them is carried out."""
    stage = FIELDS[name].stage
    return stage is None or stage in stages or any(name in REDONE.get(one, ()) for one in stages)


def _place(stage: Stage | None) -> int:
    return len(STAGES) if stage is None else STAGES.index(stage)


def _config(function: Function) -> Function:
    decorated: Function = option(
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        section=_CARRIED_OUT,
        help="TOML file of settings; flags win over it",
    )(function)
    return decorated


def _section(name: str) -> str:
    """The heading of a setting's stage."""
    stage = FIELDS[name].stage
    if stage is None:
        return _CARRIED_OUT
    summary = SUMMARIES[stage].rstrip(".")
    return f"{stage} ({summary[0].lower()}{summary[1:]})"


def _flag(name: str, section: str) -> Callable[[Function], Function]:
    """The flag of one setting. Its value is validated with all others, not by click."""
    setting = FIELDS[name]
    text, default = setting.description, setting.default
    if default is not None and default is not False and default != ():
        text += f"  [default: {shown(default)}]"
    flag = "--" + name.replace("_", "-")
    if fields.is_switch(name):
        return option(flag, section=section, is_flag=True, default=None, help=text)
    form = fields.form(name)
    return option(
        flag, section=section, metavar=form, help=text, shell_complete=_completion(name, form)
    )


def _completion(name: str, form: str) -> Function | None:
    """What completes a flag's value: listed values, names of recipes, files, folders."""
    kind = {"FILE": "file", "FOLDER": "dir"}.get(form)

    def complete(_ctx: click.Context, _parameter: click.Parameter, text: str) -> Any:
        if name == "recipe":
            return _beginning(_recipes(), text) or [CompletionItem(text, type="file")]
        if kind is not None:
            return [CompletionItem(text, type=kind)]
        return _beginning(form[1:-1].split("|") if form.startswith("[") else (), text)

    return complete


def models(_ctx: click.Context, _parameter: click.Parameter, text: str) -> list[Any]:
    return _beginning(ADAPTERS, text) or [CompletionItem(text, type="file")]


def _recipes() -> list[str]:
    from importlib.resources import files

    folder = files("somatlas") / "data" / "recipes"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir())


def _beginning(values: Any, text: str) -> list[Any]:
    return [CompletionItem(value) for value in values if value.startswith(text)]
