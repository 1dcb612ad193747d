"""Cells on the processes of this machine."""

from __future__ import annotations

import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress

from .worker import Task, account, do, keep

_START = "from phenoscope.lab.worker import serve; serve()"
_ATTEMPTS = 2  # a process may be killed by others, or for memory that another cell took

Answer = tuple[int, str]


def local(tasks: Sequence[Task], *, jobs: int, replace: bool) -> Iterator[Answer]:
    """Do cells on `jobs` processes, or in this one where that is 1.

    Args:
        tasks: the cells.
        jobs: how many at once.
        replace: whether a result that is on disk already is replaced.

    Returns:
        For every cell as it ends: its number, and "" or an account of what went wrong. Its result is on disk.
    """
    if jobs == 1 or len(tasks) == 1 or any(_only_here(task) for task in tasks):
        return _here(tasks, replace)
    return _beside(tasks, min(jobs, len(tasks)), replace)


def _here(tasks: Sequence[Task], replace: bool) -> Iterator[Answer]:
    for number, task in enumerate(tasks):
        try:
            keep(task, do(task), replace=replace)
            yield number, ""
        except Exception as error:
            yield number, account(error)


def _beside(tasks: Sequence[Task], jobs: int, replace: bool) -> Iterator[Answer]:
    left: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(tasks)):
        left.put(number)
    ended: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()
    workers = [_Worker() for _ in range(jobs)]
    stop = threading.Event()

    def attend(worker: _Worker) -> None:
        while not stop.is_set():
            try:
                number = left.get_nowait()
            except queue.Empty:
                return
            answer: Future[Answer] = Future()
            try:
                answer.set_result((number, worker.ask(tasks[number], replace, stop)))
            except BaseException as error:
                answer.set_exception(error)
            ended.put(answer)

    threads = [threading.Thread(target=attend, args=[worker], daemon=True) for worker in workers]
    try:
        for thread in threads:
            thread.start()
        for _ in tasks:
            yield ended.get().result()
    finally:
        stop.set()
        for worker in workers:
            worker.end()
        for thread in threads:
            thread.join()


class _Worker:
    """A process that does one cell after the other; a new one takes its place if it dies."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, task: Task, replace: bool, stop: threading.Event) -> str:
        message = pickle.dumps((task, replace))
        for _ in range(_ATTEMPTS):
            try:
                process = self.process = self.process or _start()
                assert process.stdin and process.stdout
                process.stdin.write(len(message).to_bytes(8, "big") + message)
                process.stdin.flush()
                return str(pickle.load(process.stdout))
            except (EOFError, OSError, pickle.UnpicklingError):  # it died
                status = self.end()
            if stop.is_set():
                break
        return f"its process was killed {_ATTEMPTS} times (status {status}); too little memory?"

    def end(self) -> int | None:
        """Stop the process, whatever it is doing."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with suppress(OSError):  # what was still to be written to it is lost, as it should be
                    pipe.close()
        return process.wait()


def _start() -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches this process alone, which then ends its workers.
    process = subprocess.Popen(
        [sys.executable, "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin
    process.stdin.write(pickle.dumps(sys.path))
    process.stdin.flush()
    return process


def _only_here(task: Task) -> bool:
    """Whether a task names something of a script or a notebook, which another process does not have."""
    return b"__main__" in pickle.dumps(task)
