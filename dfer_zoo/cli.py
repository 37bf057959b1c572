"""The verbs of the Trainer: ``fit``, ``validate``, ``test`` and ``predict``, on LightningCLI."""

import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml
from jsonargparse import ArgumentError
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, RichProgressBar, WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.trainer import Trainer
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from dfer_zoo import data, models  # noqa: F401  their classes can be named in yaml
from dfer_zoo.checkpoints import LastCheckpoint, WholeCheckpointIO
from dfer_zoo.classes import class_named
from dfer_zoo.data import DFERData
from dfer_zoo.errors import InputError
from dfer_zoo.locks import alone_in
from dfer_zoo.models import DFERModel, load, read_checkpoint
from dfer_zoo.precision import choose_precision
from dfer_zoo.profile import measure_cost
from dfer_zoo.provenance import SaveRun, demand_same_clips
from dfer_zoo.results import WIDE, evaluation_table, prediction_table
from dfer_zoo.runs import (
    BEST,
    BEST_TEST,
    CONFIG,
    COST,
    LAST,
    EvaluationWriter,
    Identity,
    LeftOut,
    MetricsCSV,
    choose_version,
    silence_lightning,
    write_json,
)

TRAINING_ONLY = {
    *("batch_size", "workers", "balanced", "on_error"),
    *("crop_scale", "flip", "jitter", "hue", "color", "augment_on"),
}
"""Options of the data that change no test clip."""

SPLITS = {"fit": "test", "validate": "val", "test": "test", "predict": "predict"}
"""The split that each verb evaluates in the end."""


class DFERCLI(LightningCLI):
    """LightningCLI that names the run folder, continues an interrupted run, and tests what it has trained."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where a run goes; hand the seed to the data and the clips' shape to the model."""
        parser.add_argument("--runs", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument("--method", type=str, help="Name in folders and tables; the model's class by default.")
        parser.add_argument(
            "--rules",
            type=list[Literal["last", "best_test"]],
            default=[],
            help="Checkpoints that fit tests beside best_val: the last epoch's; best_test, the papers' rule, the epoch "
            "with the best WAR on the test clips, which are then scored after each epoch.",
        )
        parser.add_argument(
            "--checkpoint_minutes", type=float, default=10.0, help="Minutes between saves of last.ckpt within an epoch."
        )
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=_seed)
        for shared in ("frames", "size"):  # passed over by models without such an argument
            parser.link_arguments(f"data.init_args.{shared}", f"model.init_args.{shared}")

    @property
    def settings(self):
        """The parsed configuration of the verb."""
        return self.config[self.subcommand]

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        """Parse the words; evaluate the very model that a checkpoint holds, whatever they say of it.

        Raises:
            InputError: no checkpoint named, or one that cannot be used.
        """
        super().parse_arguments(parser, args)
        subcommand = self.config.subcommand
        checkpoint = self.config[subcommand].ckpt_path
        if checkpoint:
            spec = read_checkpoint(checkpoint)["dfer_zoo"]
            given = self.config[subcommand].data.init_args
            if (given.frames, given.size) != (spec["frames"], spec["size"]):
                raise InputError(
                    f"{checkpoint} was trained on {spec['frames']} frames of {spec['size']} px; the data gives "
                    f"{given.frames} of {given.size}. Add --data.frames {spec['frames']} --data.size {spec['size']}."
                )
            if subcommand != "fit":
                model = load(checkpoint)  # or says what is wrong with it
                named = f"{type(model).__module__}.{type(model).__qualname__}"
                evaluated = {"class_path": named, "dict_kwargs": dict(model.hparams)}
                self.config = parser.parse_object({subcommand: {"model": evaluated}}, self.config)
        elif subcommand != "fit":
            raise InputError(f"`{subcommand}` needs --ckpt_path, a file such as RUN/checkpoints/{BEST}.ckpt.")

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would import any class that a file names, and train with the options in it."""

    def before_instantiate_classes(self) -> None:
        """Choose the precision where none is given; skip pretrained weights that the checkpoint would overwrite."""
        trainer = self.settings.trainer
        if trainer.precision is None:
            trainer.precision = choose_precision(trainer.accelerator)
        if self.subcommand != "fit" and "pretrained" in self.settings.model.init_args:
            self.settings.model.init_args.pretrained = False

    def instantiate_trainer(self, **kwargs) -> Trainer:
        """Build the Trainer with this project's loggers and callbacks in the run's own folder."""
        settings = self.settings
        callbacks: list[Callback] = list(self._get(self.config_init, "trainer").callbacks or [])
        self.held = ExitStack()
        if settings.trainer.enable_progress_bar is not False:
            callbacks.append(RichProgressBar(leave=True))
        if self.subcommand == "fit":
            folder, name = self._training_folder(), f"test-{BEST}"
            callbacks.append(LeftOut(folder))
            if settings.trainer.logger in (None, True):
                tensorboard = TensorBoardLogger(settings.runs, folder.parent.name, folder.name)
                kwargs["logger"] = [MetricsCSV(folder), tensorboard]
                callbacks.append(LearningRateMonitor("step"))
            if settings.trainer.fast_dev_run:
                kwargs["enable_checkpointing"] = False  # ModelCheckpoint would leave a last.ckpt even then
            elif settings.trainer.enable_checkpointing is not False:
                checkpoints = {"dirpath": folder / "checkpoints", "enable_version_counter": False}
                callbacks.append(ModelCheckpoint(filename=BEST, monitor="val_war", mode="max", **checkpoints))
                if BEST_TEST in settings.rules:
                    self.datamodule.test_each_epoch = True
                    callbacks.append(ModelCheckpoint(filename=BEST_TEST, monitor="test_war", mode="max", **checkpoints))
                callbacks.append(LastCheckpoint(folder / "checkpoints", LAST, settings.checkpoint_minutes))
                kwargs["plugins"] = [WholeCheckpointIO(), *(self._get(self.config_init, "trainer").plugins or [])]
        else:
            kwargs |= {"logger": False, "enable_checkpointing": False}
            if "verbose" in self.config_init[self.subcommand]:
                self.config_init[self.subcommand].verbose = False  # our table takes the place of Lightning's
            self.save_config_callback = None  # without a logger it writes into the current folder
            checkpoint = Path(settings.ckpt_path)
            folder = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
            name = "-".join([SPLITS[self.subcommand], checkpoint.stem, *self._differences(folder)])
        self.writer = EvaluationWriter(folder, name)
        return super().instantiate_trainer(callbacks=[*callbacks, self.writer], **kwargs)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the verb; let the run's folder go in the end."""
        with self.held:
            super()._run_subcommand(subcommand)

    def _differences(self, folder: Path) -> list[str]:
        """Name what is evaluated otherwise than in the run's own test, so that no other score takes its place."""
        trained = {"class_path": None}
        if (folder / CONFIG).is_file():
            trained = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))["data"]
        ours = yaml.safe_load(self._parser(self.subcommand).dump(self.settings, skip_none=False))["data"]
        root = Path(ours["init_args"]["root"]).resolve()
        if ours["class_path"] != trained["class_path"]:
            return [type(self.datamodule).__name__.lower(), root.name, *self._limits()]
        found = []
        for key, value in ours["init_args"].items():
            if key == "root":
                if root != Path(trained["init_args"]["root"]).resolve():
                    found.append(f"root={root.name}")
            elif key not in TRAINING_ONLY and value != trained["init_args"].get(key):
                found.append(f"{key}={value}")
        return [*found, *self._limits()]

    def _limits(self) -> list[str]:
        """Say whether the evaluation leaves clips out."""
        trainer = self.settings.trainer
        limit = trainer[f"limit_{SPLITS[self.subcommand]}_batches"]
        whole = limit is None or (isinstance(limit, float) and limit == 1)
        return [] if whole and not trainer.fast_dev_run else ["partial"]

    def _training_folder(self) -> Path:
        """Choose and hold the run's folder; if its training was interrupted, continue from its last checkpoint.

        Raises:
            InputError: another process is training the run, or its clips have changed.
        """
        run, last = choose_version(self.identity())
        # of several devices, the first holds it; a trial of a few steps writes nothing
        if rank_zero_only.rank == LightningEnvironment().node_rank() == 0 and not self.config.fit.trainer.fast_dev_run:
            self.held.enter_context(alone_in(run, "trained"))
        if last is not None:
            read_checkpoint(last)  # says so if it is damaged
            demand_same_clips(run, self.datamodule)
            self.config_init.fit.ckpt_path = str(last)
            Console().print(f"Continuing the interrupted run {run} from {LAST}.ckpt.", markup=False)
        return run

    def identity(self) -> Identity:
        """Return what tells the training that the words ask for from others."""
        settings = self.settings
        method = settings.method or settings.model.class_path.rpartition(".")[2].lower()
        folder = Path(settings.runs) / f"{method}-{type(self.datamodule).__name__.lower()}"
        version = f"{self.datamodule.run_name}-seed{settings.seed_everything}"
        return Identity(folder, version, self._parser("fit").dump(settings, skip_none=False), self._complete)

    def _complete(self, config: str) -> Mapping[str, Any]:
        parser = self._parser("fit")
        parser.exit_on_error = False
        try:
            return yaml.safe_load(parser.dump(parser.parse_string(config), skip_none=False))
        except ArgumentError:  # of an option that is no more
            return yaml.safe_load(config)

    def after_fit(self) -> None:
        """Test the chosen checkpoints; measure the model's cost, which ends the run."""
        if self.trainer.fast_dev_run or self.trainer.checkpoint_callback is None or self.trainer.interrupted:
            return
        self.trainer.loggers = []  # these tests are not of the last step, which they would be logged for
        # averaging would put its last step's weights in the place of those that the checkpoint answers with
        self.trainer.callbacks = [each for each in self.trainer.callbacks if not isinstance(each, WeightAveraging)]
        for rule in dict.fromkeys([BEST, *self.settings.rules]):
            self.writer.name = "-".join([f"test-{rule}", *self._limits()])
            checkpoint = self.writer.folder / "checkpoints" / f"{rule}.ckpt"
            self.trainer.test(self.model, self.datamodule, ckpt_path=checkpoint, verbose=False)
            self.after_test()
        if self.trainer.is_global_zero:
            self.model.to(self.trainer.strategy.root_device)  # the Trainer has put it back on the CPU
            cost = measure_cost(self.model, self.datamodule, self.trainer.precision_plugin)
            write_json(self.writer.folder / COST, cost)

    def after_test(self) -> None:
        """Show the evaluation and say where it is written."""
        if self.trainer.is_global_zero:
            console = Console(width=max(Console().width, WIDE))
            if self.writer.result is not None:
                console.print(evaluation_table(self.writer.result, f"{self.writer.folder} {self.writer.name}"))
            elif self.subcommand == "predict":
                from dfer_zoo.calibration import temperature_of

                predictions = pd.read_csv(self.writer.written, dtype={"clip": str})
                console.print(prediction_table(predictions, temperature_of(Path(self.settings.ckpt_path))))
            console.print(f"Predictions: {self.writer.written}", markup=False)

    after_validate = after_predict = after_test


class Planner(DFERCLI):
    """Parse the words of trainings without carrying them out; only the data module is built, which reads no file."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the verb that trains; the parsers of the others take time to build."""
        return {"fit": LightningCLI.subcommands()["fit"]}

    def instantiate_classes(self) -> None:
        """Build nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""

    def identify(self, words: Sequence[str]) -> Identity:
        """Return the identity of the training that the words ask for."""
        self.parse_arguments(self.parser, list(words))
        self.before_instantiate_classes()
        dataset = self.settings.data
        self.datamodule = class_named(dataset.class_path, DFERData)(**dataset.init_args.as_dict())
        return self.identity()


def _seed(seed: int | bool) -> int:
    if isinstance(seed, bool):
        raise InputError(f"seed_everything is {seed}; a run needs a number, such as 0, to be repeated.")
    return seed


def run(args: list[str]) -> None:
    """Carry out a verb of the Trainer.

    Args:
        args: the words of the command line, the verb first.

    Raises:
        InputError: an input that a person can correct.
    """
    with plain_errors():
        build(DFERCLI, args)


def identify(trainings: Sequence[Sequence[str]]) -> list[Identity]:
    """Return the identities of trainings, each given as words of the command line, ``fit`` first.

    Raises:
        InputError: an input that a person can correct.
    """
    if not trainings:
        return []
    with plain_errors():
        planner = build(Planner, trainings[0])
        return [planner.identify(words) for words in trainings]


def build_data(words: Sequence[str]) -> DFERData:
    """Return the data module that a training would use; it has read no file yet.

    Args:
        words: of the command line, ``fit`` first.

    Raises:
        InputError: an input that a person can correct.
    """
    with plain_errors():
        planner = build(Planner, words)
        planner.identify(words)
        return planner.datamodule


def build(cli: type[DFERCLI], args: Sequence[str]) -> DFERCLI:
    """Hand words to LightningCLI, set up for this project."""
    silence_lightning()
    return cli(
        DFERModel,
        DFERData,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=SaveRun,
        save_config_kwargs={"command": shlex.join(["dfer-zoo", *args])},
        seed_everything_default=0,
        # `ClipBatches` shares the clips out, each exactly once
        trainer_defaults={"use_distributed_sampler": False},
        parser_kwargs={"prog": "dfer-zoo"},
        args=list(args),
    )


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise the InputError that jsonargparse has wrapped."""
    try:
        yield
    except ValueError as error:  # jsonargparse wraps what a model's or dataset's __init__ raises
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        raise cause or error from None
    except SIGTERMException as stop:  # Lightning's answer outside of training; its status would be that of success
        raise SystemExit(128 + signal.SIGTERM) from stop
