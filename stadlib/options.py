"""A command is a function: its signature is its options, positional before ``*``, and its
annotations and its docstring are its help.

``Annotated[T, text]`` holds an option's help. ``T | None`` and sequences of T are read as T. A
dataclass is an option for each field. A user's mistake is a ConfigError of one line.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, get_args, get_origin

from stadlib.base import ConfigError, check_word


class _Parser(argparse.ArgumentParser):
    """One line instead of a usage text."""

    def error(self, message: str) -> None:
        raise ConfigError(f"{message}; see {self.prog} --help")


def parse(commands: Sequence[Callable[..., None]], arguments: list[str] | None = None) -> partial:
    """The command that a command line names, with its options; call it to run it."""
    parser = _Parser(prog="stadlib", description="Every command of the study.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in commands:
        name, text = command.__name__.removesuffix("_command"), command.__doc__
        subparser = subparsers.add_parser(name, help=text, description=text)
        options = inspect.signature(command, eval_str=True).parameters.values()
        subparser.set_defaults(command=command, options=options)
        for option in options:
            _add(subparser, option)
    values = vars(parser.parse_args(arguments))
    command, options, positional = values.pop("command"), values.pop("options"), []
    for option in options:
        kind, _ = _read(option.annotation)
        if option.kind is option.VAR_POSITIONAL:
            positional = values.pop(option.name)
        elif is_dataclass(kind):
            values[option.name] = kind(**{f.name: values.pop(f.name) for f in fields(kind)})
        elif get_origin(kind) is Literal:
            check_word(option.name, values[option.name], get_args(kind))
    return partial(command, *positional, **values)


def _read(annotation: object) -> tuple[object, list[str]]:
    """The type of an annotation and its help, if it has one."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    kind, *texts = get_args(annotation)
    return kind, texts


def _add(parser: argparse.ArgumentParser, option: inspect.Parameter) -> None:
    """Give a parser the option that a command's parameter stands for."""
    kind, texts = _read(option.annotation)
    if is_dataclass(kind):
        for name, value in vars(option.default).items():
            field = Annotated[type(value), kind.HELP[name]]
            _add(parser, option.replace(name=name, default=value, annotation=field))
        return
    name, needed, settings = option.name.rstrip("_"), option.default is option.empty, {}
    if get_origin(kind) is Literal:
        texts.append(", ".join(map(str, get_args(kind))))
        kind = str
    if NoneType in get_args(kind):
        kind = get_args(kind)[0]
    if get_origin(kind) in (list, Sequence):
        kind = get_args(kind)[0]
        settings["nargs"] = "+"
    if texts and not isinstance(texts[-1], str):  # what an option means that stands alone
        settings |= {"nargs": "?", "const": texts.pop()}
    settings["help"] = ": ".join(texts).replace("%", "%%")
    if kind is bool:
        settings["action"] = "store_true"
    else:
        settings |= {"type": kind, "metavar": "PATH" if kind is Path else name.upper()}
    if not needed:
        settings["default"] = option.default
    if option.kind is option.KEYWORD_ONLY:
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, dest=option.name, required=needed, **settings)
    elif option.kind is option.VAR_POSITIONAL:
        parser.add_argument(option.name, nargs="*", **settings)
    else:
        parser.add_argument(option.name, **settings if needed else settings | {"nargs": "?"})
