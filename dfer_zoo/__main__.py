"""The command line. What it prints by itself needs neither torch nor lightning, so it comes at once."""

import json
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from itertools import islice, pairwise
from typing import get_origin

TRAINER_VERBS = {
    "fit": "train a model on a dataset, then test the checkpoint chosen on validation clips",
    "validate": "evaluate a checkpoint on the validation clips",
    "test": "evaluate a checkpoint on the test clips",
    "predict": "classify clips, with or without labels",
}

COMMANDS = {
    "check": ("dfer_zoo.data.check:check", "say what is wrong with a dataset on disk"),
    "pack": ("dfer_zoo.data.pack:pack", "put a dataset's frames into one file that loads several times faster"),
    "synthesize": ("dfer_zoo.synthetic:synthesize", "render labelled clips of generated faces in a dataset's layout"),
    "crossval": ("dfer_zoo.crossval:crossval", "train and test models on all folds and seeds, each once"),
    "ablation": ("dfer_zoo.ablations:ablation", "train and test the rows of a paper's ablation table"),
    "study": ("dfer_zoo.study:study", "repeat the study of experiments/study.yaml: data, runs, tables, figures"),
    "compare": ("dfer_zoo.report:compare", "put methods into one table with intervals, paired tests and figures"),
    "figures": ("dfer_zoo.figures.command:figures", "draw every figure that applies to finished runs"),
    "recognize": ("dfer_zoo.video.command:recognize", "say what the faces in videos of your own seem to express"),
    "crop": ("dfer_zoo.video.dataset:crop_videos", "make aligned face clips of labelled videos, to train on"),
    "gallery": ("dfer_zoo.figures:gallery", "draw clips of a run's test split with what the model says"),
    "stress": ("dfer_zoo.stress:stress", "test runs under darkness, blur, noise, lost frames and other corruptions"),
    "calibrate": (
        "dfer_zoo.calibration:calibrate",
        "fit a temperature to a run's probabilities; draw how reliable they are",
    ),
    "profile": ("dfer_zoo.profile:profile", "measure what the recipes cost here: MACs, memory, clips a second"),
    "report": ("dfer_zoo.page:report", "put everything there is to see of finished runs into one html page"),
    "export": ("dfer_zoo.export:export", "write a trained model to one file that runs without this package"),
}


NAMED = ("synthesize", "crossval", "ablation", "study")
"""Commands whose required arguments are given by name: their order would be a guess."""


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
        console.print(
            f"There is no command {command!r}. There are: {', '.join((*TRAINER_VERBS, *COMMANDS))}.", markup=False
        )
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
    except KeyboardInterrupt:
        console.print("Stopped. Nothing is half-written; the same words go on, or begin again.")
        return 128 + signal.SIGINT


def call(command: str, words: list[str]) -> object:
    """Parse the words after a command by the signature of its function, and call it.

    Required arguments are positional, but for the commands in `NAMED`; a list takes all words that are neither an
    option nor its value, wherever they stand; a switch needs no value. Where the function takes `fit_options`, these
    are the options that it does not know.
    """
    from jsonargparse import ArgumentParser

    module, name = COMMANDS[command][0].split(":")
    function = getattr(import_module(module), name)
    parameters = signature(function).parameters
    more = "Options that are not listed here are handed to `fit`." if "fit_options" in parameters else None
    parser = ArgumentParser(prog=f"dfer-zoo {command}", description=more)
    parser.add_function_arguments(function, as_positional=command not in NAMED, skip={"fit_options"})
    first = next(iter(parameters.values()))
    switches = {f"--{key}" for key, parameter in parameters.items() if parameter.annotation is bool}
    words = [
        f"{word}=true" if word in switches and following.lower() not in ("true", "false") else word
        for word, following in pairwise([*words, "--"])
    ]
    if more:
        words, fit_options = share_out(words, {"--help", "-h", *(f"--{key}" for key in parameters)})
        return function(**parser.parse_args(words), fit_options=fit_options)
    if get_origin(first.annotation) is list:
        listed, options = split_options(words)
        words = [json.dumps(listed), *options]
    return function(**parser.parse_args(words))


def split_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words into those that stand by themselves, and options with their values.

    >>> split_options(["--out", "here", "a.mp4", "--seed=1", "b.mp4"])
    (['a.mp4', 'b.mp4'], ['--out', 'here', '--seed=1'])
    """
    alone: list[str] = []
    options: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            alone.append(word)
        elif "=" in word or word in ("-h", "--help"):
            options.append(word)
        else:
            options += [word, *islice(rest, 1)]
    return alone, options


def share_out(words: Sequence[str], known: set[str]) -> tuple[list[str], list[str]]:
    """Share words out by the option that they belong to.

    Args:
        words: of the command line.
        known: options.

    Returns:
        The known options with their values, and the others with theirs.

    >>> share_out(["--model", "hdf", "--data.size=64", "--trainer.max_epochs", "2"], {"--model"})
    (['--model', 'hdf'], ['--data.size=64', '--trainer.max_epochs', '2'])
    """
    parts: tuple[list[str], list[str]] = ([], [])
    part = parts[0]
    for word in words:
        if word.startswith("-"):
            part = parts[word.split("=")[0] not in known]
        part.append(word)
    return parts


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
