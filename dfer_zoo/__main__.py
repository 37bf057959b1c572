"""The command line. What it prints by itself needs neither torch nor lightning, so it comes at once."""

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from itertools import takewhile
from typing import get_origin

TRAINER_VERBS = {
    "fit": "train a model on a dataset, then test the checkpoint chosen on validation clips",
    "validate": "evaluate a checkpoint on the validation clips",
    "test": "evaluate a checkpoint on the test clips",
    "predict": "classify clips, with or without labels",
}

COMMANDS = {
    "check": ("dfer_zoo.data.check:check", "say what is wrong with a dataset on disk"),
    "synthesize": ("dfer_zoo.synthetic:synthesize", "render labelled clips of generated faces in a dataset's layout"),
    "compare": ("dfer_zoo.results:compare", "put finished runs into one table with figures"),
    "recognize": ("dfer_zoo.video.command:recognize", "say what the faces in videos of your own seem to express"),
    "crop": ("dfer_zoo.video.dataset:crop_videos", "make aligned face clips of labelled videos, to train on"),
    "gallery": ("dfer_zoo.figures:gallery", "draw clips of a run's test split with what the model says"),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0; 1 for a failed check or nothing found; 2 for wrong input."""
    args = list(sys.argv[1:] if args is None else args)
    command = args[0] if args else "--help"
    if command in ("-h", "--help"):
        print_help()
        return 0
    if command == "--version":
        from dfer_zoo import __version__

        print(f"dfer-zoo {__version__}")
        return 0
    from rich.console import Console

    from dfer_zoo.errors import InputError

    console = Console(stderr=True)
    if command not in TRAINER_VERBS and command not in COMMANDS:
        console.print(f"There is no command {command!r}. There are: {', '.join((*TRAINER_VERBS, *COMMANDS))}.")
        return 2
    try:
        if command in TRAINER_VERBS:
            from dfer_zoo.cli import run

            run(args)
            return 0
        status = call(command, args[1:])
        return status if isinstance(status, int) else 0
    except InputError as error:
        console.print(f"[bold red]{type(error).__name__}:[/] ", end="")
        # from a loader's process, the message comes behind that process' traceback
        message = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
        console.print(message, markup=False, highlight=False, soft_wrap=True)
        return 2


def call(command: str, words: list[str]) -> object:
    """Parse the words after a command by the signature of its function, and call it.

    Required arguments are positional, but for `synthesize`, where the order of two names would be a guess; a list takes
    all words up to the first option.
    """
    from jsonargparse import ArgumentParser

    module, name = COMMANDS[command][0].split(":")
    function = getattr(import_module(module), name)
    parser = ArgumentParser(prog=f"dfer-zoo {command}")
    parser.add_function_arguments(function, as_positional=command != "synthesize")
    first = next(iter(signature(function).parameters.values()))
    if get_origin(first.annotation) is list:
        count = sum(1 for _ in takewhile(lambda word: not word.startswith("-"), words))
        words = [json.dumps(words[:count]), *words[count:]]
    return function(**parser.parse_args(words))


def print_help() -> None:
    """Print the commands."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for name, text in {**TRAINER_VERBS, **{name: text for name, (_, text) in COMMANDS.items()}}.items():
        table.add_row(f"  {name}", text)
    console = Console()
    console.print("usage: dfer-zoo COMMAND [ARGUMENTS]\n\nDynamic facial expression recognition.\n")
    console.print(table)
    console.print("\n`dfer-zoo COMMAND --help` shows the arguments. `make help` shows the ready-made recipes.")


if __name__ == "__main__":
    sys.exit(main())
