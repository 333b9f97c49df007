"""The command line: `bestiary COMMAND`. Each command is a file in `hub/commands`."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from typing import Any

import click

from ..core.callers import debugging, whole_tracebacks
from ..core.errors import BestiaryError

# Command -> module in hub/commands, and the line that `bestiary --help` shows, so that help
# imports no command.
_COMMANDS = {
    "tour": ("tour", "See it work: bundled and starter models on sample photographs."),
    "list": ("catalog", "Names of the models that can be loaded."),
    "find": ("find", "Look for models by words, task, licence and size."),
    "info": ("catalog", "What is known of a model: licence, size, results, sources."),
    "pull": ("pull", "Fetch models ahead of their use."),
    "predict": ("predict", "Run a model on pictures, texts or recordings."),
    "search": ("search", "Find what means the same in a file or folder of texts."),
    "generate": ("generate", "Continue a text with a language model."),
    "chat": ("chat", "Talk to a language model in the terminal."),
    "sample": ("sample", "Make pictures: of a text, of a class, of one kind."),
    "train": ("train", "Train a model of your own by a recipe: ddpm, dcgan, vae, ..."),
    "upscale": ("upscale", "Make pictures two or four times larger."),
    "play": ("play", "Let an agent play, and record what is seen."),
    "finetune": ("finetune", "Teach a model your own classes."),
    "evaluate": ("evaluate", "Measure a model on labelled data."),
    "board": ("board", "Show runs while they go on: a page of this machine."),
    "runs": ("runs", "List and compare runs: figures, hyper-parameters."),
    "pack": ("pack", "Put models into one file, for machines without a network."),
    "unpack": ("pack", "Take the models out of such a file."),
    "lock": ("lock", "Pin models to commits and hashes."),
    "push": ("push", "Publish a saved model on the hub."),
    "convert": ("convert", "Turn a torch checkpoint into safetensors."),
    "export": ("export", "Write a model as ONNX, for other engines."),
    "cache": ("cache", "What was fetched: list, verify, remove, where."),
    "check": ("check", "Look into a weight file: structure, shapes, broken values."),
    "bench": ("bench", "Time a model on this machine, as it is and compiled."),
    "doctor": ("doctor", "What is installed, what is missing, and how to get it."),
}


class _Commands(click.Group):
    """Imports a command when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f".commands.{_COMMANDS[name][0]}", __package__)
        command = getattr(module, f"{name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            if near:
                raise click.UsageError(
                    f"{error.format_message()} Did you mean {near[0]!r}?", ctx
                ) from None
            raise


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from .. import __version__

        click.echo(f"bestiary {__version__}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True)
@click.option(
    "--debug", is_flag=True, help="Show the full traceback of errors (or BESTIARY_DEBUG=1)."
)
@click.option(
    "--locked", is_flag=True, help="Load only what bestiary.lock (or BESTIARY_LOCK) names."
)
@click.pass_context
def cli(ctx: click.Context, debug: bool, locked: bool) -> None:
    """Load pretrained models by name, predict, fine-tune."""
    ctx.obj = {"debug": debug}
    if locked:
        from .lock import in_force, require

        lock = in_force(True)
        require(lock.path if lock is not None else None)
        ctx.call_on_close(lambda: require(None))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 bad arguments, 130 interrupted."""
    _share_the_cores()
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(_run(given))


def _share_the_cores() -> None:
    """Let BLAS's threads wait 0.2 ms for their next product, which keeps cores from C kernels.

    OpenBLAS reads it when NumPy is imported. Without it they wait 0.1 s, and a network of
    convolutions with some products takes a third longer.
    """
    if "numpy" not in sys.modules:
        os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "19")  # 2 ** 19 ticks


def _run(arguments: list[str]) -> int:
    if "--debug" in itertools.takewhile(lambda word: word.startswith("-"), arguments):
        with whole_tracebacks():
            return _answered(arguments)
    return _answered(arguments)


def _answered(arguments: list[str]) -> int:
    """The exit code of a command; an error is a few lines, or a traceback when debugging."""
    try:
        result: Any = cli.main(arguments, prog_name="bestiary", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("\ninterrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader went away (`bestiary list | head`): nothing more can be said, so Python's
        # last flush goes nowhere. Click ends with 1 too when it notices first.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (BestiaryError, OSError) as error:
        if debugging():
            raise
        click.echo(f"error: {error}", err=True)
        return 1
    except Exception as error:
        if debugging():
            raise
        click.echo(
            f"error: {type(error).__name__}: {error}\n"
            "This is a fault of bestiary, not of what you gave it. Please report it with what "
            "`bestiary --debug ...` prints.",
            err=True,
        )
        return 1
