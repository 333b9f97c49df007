"""Worker processes: spawned, never forked, with one BLAS thread each.

Each is looked after by one thread of the loader, which sends it tasks and receives batches.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from ..errors import BestiaryError, ConfigError, DataError
from .reading import Cancelled, Reader, Task
from .transport import pack, receive, receive_parts, send, unpack
from .workers import CannotStart

# A worker is one of several: BLAS libraries that each took all cores would slow each other down.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_NO_GUARD = 75  # exit status of a worker whose main program starts workers while it is imported
_environment = threading.Lock()


class WorkerTraceback(Exception):
    """The traceback of an error in a worker process, as text; the cause of the error here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text}"


# -- in the loader's process ------------------------------------------------------------------


class ProcessRunner:
    """One worker process, as its thread sees it."""

    def __init__(self, number: int, count: int, payload: list[Any]) -> None:
        self.number = number
        self._where = f"worker process {number + 1} of {count}"
        self._payload: list[Any] | None = payload
        self._sending = threading.Lock()
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=_work, args=(other, self._where), name=f"bestiary-data-{number}", daemon=True
        )
        try:
            self._process.start()
        finally:
            other.close()

    def __call__(self, task: Task, stop: Callable[[], bool]) -> Any:
        """The batch, read there."""
        try:
            self._start()
            with self._sending:
                send(self._connection, pack(("task", task)))
            kind, *rest = receive(self._connection)
        except (EOFError, OSError) as error:
            if stop():
                raise Cancelled from None
            raise self._death(starting=False, task=task) from error
        if kind == "batch":
            return rest[0]
        if kind == "cancelled":
            raise Cancelled
        raise _failure(*rest)

    def _start(self) -> None:
        if self._payload is None:
            return
        try:
            with self._sending:
                send(self._connection, self._payload)
            kind, *rest = receive(self._connection)
        except (EOFError, OSError):
            raise CannotStart from self._death(starting=True, task=None)
        self._payload = None
        if kind != "ready":
            raise CannotStart from _failure(*rest)

    def _death(self, *, starting: bool, task: Task | None) -> BestiaryError:
        """Why the process is not there any more."""
        self._process.join(10)
        code = self._process.exitcode
        if starting and code == _NO_GUARD:
            return ConfigError(
                "worker processes import the main program, and this one starts workers while it "
                "is imported.\nPut what the program does under a guard:\n\n"
                "    if __name__ == '__main__':\n        main()\n\n"
                "or use threads, which need none: DataLoader(..., processes=False).",
            )
        what = (
            f"was ended by signal {-code}"
            if code is not None and code < 0
            else (f"ended with status {code}")
        )
        if starting:
            return DataError(
                f"{self._where} {what} while it started.\n"
                "It imports the main program first: does that work, with what it prints above?",
                exitcode=code,
            )
        lines = [f"{self._where} {what} while it read batch {task.number if task else '?'}."]
        if code == -9:
            lines.append("Signal 9 is often the system's answer to too little memory: use fewer")
            lines.append("workers or smaller batches.")
        if task is not None:
            shown = ", ".join(str(item)[:40] for item in task.items[:8])
            lines.append(f"The batch has the samples {shown}{', ...' * (len(task.items) > 8)}")
        return DataError("\n".join(lines), exitcode=code, batch=task.number if task else None)

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process.exitcode is None

    def cancel(self) -> None:
        """Ask the process to drop what it is doing."""
        self._say("cancel")

    def end(self) -> None:
        """Ask the process to end, without waiting."""
        self._say("end")

    def _say(self, word: str) -> None:
        # A thread that is sending a task lets go soon; one that sends a large data set to a
        # process that does not listen is cut off by the end of the process.
        if self._sending.acquire(timeout=2):
            try:
                with suppress(OSError, ValueError):  # it has ended already
                    send(self._connection, pack((word,)))
            finally:
                self._sending.release()

    def wait(self, patience: float) -> None:
        """Wait for the end of the process; ends it by force if it takes too long."""
        self._process.join(patience)
        if self._process.exitcode is None:
            self._process.terminate()
            self._process.join(2)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()

    def release(self) -> None:
        """Give back what the ended process held here."""
        self._connection.close()
        self._process.close()


def start_processes(
    reader: Reader, count: int, worker_init: Callable[[int], None] | None
) -> list[ProcessRunner]:
    """Start `count` worker processes; they get ready side by side.

    Raises:
        ConfigError: the data set cannot be sent there, or this is no place to start processes.
    """
    _check_place()
    payload = _payload(reader, worker_init)
    runners: list[ProcessRunner] = []
    try:
        with _one_thread_each():
            for number in range(count):
                runners.append(ProcessRunner(number, count, payload))
    except BaseException:
        end_processes(runners)
        release_processes(runners)
        raise
    return runners


def end_processes(runners: list[ProcessRunner], patience: float = 5.0) -> None:
    """End worker processes and wait until they have ended; their threads notice."""
    for runner in runners:
        runner.end()
    deadline = time.monotonic() + patience
    for runner in runners:
        runner.wait(max(0.0, deadline - time.monotonic()))


def release_processes(runners: list[ProcessRunner]) -> None:
    """Give back what ended processes held here, once no thread uses it any more."""
    for runner in runners:
        runner.release()


def stop_processes(runners: list[ProcessRunner]) -> None:
    """End worker processes that no thread uses."""
    end_processes(runners)
    release_processes(runners)


def _check_place() -> None:
    current = multiprocessing.current_process()
    if getattr(current, "_inheriting", False):
        # This *is* a worker that imports the main program. Its parent turns the status into an
        # explanation; a traceback from here would only be printed once for each worker.
        raise SystemExit(_NO_GUARD)
    if current.daemon:
        raise ConfigError(
            "a worker process cannot start worker processes of its own: a data set that uses a "
            "DataLoader inside must use threads there (processes=False)"
        )


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that are started inside find variables for one BLAS thread."""
    with _environment:
        before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
        os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _payload(reader: Reader, worker_init: Callable[[int], None] | None) -> list[Any]:
    try:
        return pack(("begin", reader, worker_init))
    except Exception as error:
        path, culprit = _culprit(
            {
                "dataset": reader.dataset,
                "transform": reader.transforms,
                "collate": reader.collate,
                "worker_init": worker_init,
            }
        )
        raise ConfigError(
            f"{path} cannot be sent to worker processes: {_describe(culprit)}\n"
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})\n"
            "Use a function or class defined at the top level of a module and open files on first "
            "use,\nor use threads, which share it as it is: DataLoader(..., processes=False).",
            path=path,
        ) from error


def _culprit(values: dict[str, Any]) -> tuple[str, Any]:
    """The innermost part that cannot be pickled, and the path to it."""
    path, found = "the data set", None
    for _ in range(8):
        for name, value in values.items():
            try:
                ForkingPickler(io.BytesIO(), 5).dump(value)
            except Exception:
                path, found = name, value
                break
        else:
            break
        values = _parts(path, found)
    return path, found


def _parts(path: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {f"{path}[{key!r}]": part for key, part in value.items()}
    if isinstance(value, tuple | list | set):
        return {f"{path}[{number}]": part for number, part in enumerate(value)}
    try:
        return {f"{path}.{name}": part for name, part in vars(value).items()}
    except TypeError:
        return {}


def _describe(value: Any) -> str:
    code = getattr(value, "__code__", None)
    if code is not None:
        kind = "a lambda" if value.__name__ == "<lambda>" else f"a local function {value.__name__}"
        return f"it is {kind} ({code.co_filename}:{code.co_firstlineno})"
    return f"it is {type(value).__module__}.{type(value).__qualname__}"


def _failure(error: BaseException, text: str) -> BaseException:
    error.__cause__ = WorkerTraceback(text)
    return error


# -- in the worker process --------------------------------------------------------------------


def _work(connection: Connection, where: str) -> None:
    # Ctrl-C goes to every process of the terminal; the loader's process decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the loader has ended
        reader = _prepare(connection, where)
        if reader is not None:
            _serve(connection, reader)


def _prepare(connection: Connection, where: str) -> Reader | None:
    parts = receive_parts(connection)
    try:
        kind, *rest = unpack(parts)
        if kind != "begin":
            return None
        reader, worker_init = rest
        if worker_init is not None:
            worker_init(int(where.split()[2]) - 1)
    except Exception as error:
        text = traceback.format_exc()
        message = f"{where} could not begin: {type(error).__name__}: {error}"
        if isinstance(error, AttributeError | ModuleNotFoundError):
            message += (
                "\nThe worker imports the main program and its modules, and did not find this "
                "there: a class or\nfunction for workers must stand at the top level of a file, "
                "not under the main guard and not in a notebook.\n"
                "Or use threads: DataLoader(..., processes=False)."
            )
        send(connection, pack(("error", DataError(message, traceback=text), text)))
        return None
    send(connection, pack(("ready",)))
    prepared: Reader = replace(reader, where=where, global_seed=True)
    return prepared


def _serve(connection: Connection, reader: Reader) -> None:
    ended = False

    def stop() -> bool:
        nonlocal ended
        if connection.poll():
            ended = receive(connection)[0] == "end"
            return True
        return False

    while not ended:
        kind, *rest = receive(connection)
        if kind == "end":
            return
        if kind == "cancel":  # it came after the batch was done
            continue
        parts = _answer(reader, rest[0], stop)
        if not ended:
            send(connection, parts)


def _answer(reader: Reader, task: Task, stop: Callable[[], bool]) -> list[Any]:
    try:
        return pack(("batch", reader(task, stop)))
    except Cancelled:
        return pack(("cancelled",))
    except BestiaryError as error:
        return pack(("error", error, error.facts.get("traceback") or traceback.format_exc()))
    except BaseException as error:
        text = traceback.format_exc()
        message = (
            f"batch {task.number} was read and could not be sent back by {reader.where}: "
            f"{type(error).__name__}: {error}"
        )
        return pack(("error", DataError(message, traceback=text), text))
