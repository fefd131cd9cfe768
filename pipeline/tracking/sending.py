"""A process that publishes the curves of trainings while they train, so that nothing waits for MLflow.

Who trains starts it and writes JSON lines to its standard input: first {"study": Address, "here": bool,
"begin_s": float, "goodbye_s": float}, then again and again, for any training, all that is known of it:
{"training", "history", "status", "usage"}. It sends the last line of each, from `begin_s` on: what is finished sooner
has no curve worth watching and is sent by `report`, and importing MLflow would slow it down. For trainings
that are `here`, it also holds a lock by which others see that it lives
(`Tracker.settle`), should it be killed together with who trains. At the end of its input the trainings have ended, or
their process has died: it then has `goodbye_s` to send what is left, and to mark those as killed that did
not say how they ended, if they were `here`; on a cluster they go on.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from filelock import FileLock

from pipeline.checkpoint import Record
from pipeline.errors import StudyError, TrackingError
from pipeline.storage.objects import Storage
from pipeline.tracking import unsent
from pipeline.tracking.address import tracking_uri
from pipeline.tracking.run import LEFT, LOCK_S, SENDER, Child, Status, sender, sender_lock
from pipeline.tracking.tracker import Address, Tracker

BEGIN_S, GOODBYE_S = 30.0, 5.0
RETRY_S, LAST_RETRY_S = 5.0, 0.5
WAIT_S = 0.2

Line = dict[str, Any]


class Sender:
    """While the context lasts, sends what it is told of trainings; telling it never blocks.

    A thread writes to the process, so that even one that does not read hurts nobody.
    """

    def __init__(
        self,
        address: Address,
        *,
        here: bool,
        begin_s: float = BEGIN_S,
        goodbye_s: float = GOODBYE_S,
    ) -> None:
        said = {"study": asdict(address), "here": here}
        self._header = {**said, "begin_s": begin_s, "goodbye_s": goodbye_s}
        self._told, self._done = dict[str, Line](), False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def tell(
        self, training: Line, history: Sequence[Record], status: Status,
        usage: Sequence[Mapping[str, float]] = (),
    ) -> None:  # fmt: skip
        """Notes what is known of a training, instead of what has not been written yet."""
        line = {"training": training, "history": history, "status": status, "usage": usage}
        with self._changed:
            self._told[training["key"]] = line
            self._changed.notify()

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "pipeline.tracking.sending"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )  # what it says, warnings, goes to stderr: `make study | tee` does not wait for it
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._done = True
            self._changed.notify()
        self._thread.join(WAIT_S)

    def _work(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        try:
            pipe.write(json.dumps(self._header).encode() + b"\n")
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._told or self._done)
                    lines = list(self._told.values())
                    self._told.clear()
                    if not lines:
                        pipe.close()
                        return
                for line in lines:
                    history = [asdict(record) for record in line["history"]]
                    pipe.write(json.dumps({**line, "history": history}).encode() + b"\n")
                pipe.flush()
        except OSError:  # the process has died: `report` sends what is missing
            return


class _Sending:
    """The process: a thread reads, the main thread sends the last of each training."""

    def __init__(self, header: Line) -> None:
        self._address, self._here = Address(**header["study"]), header["here"]
        self._begin_s, self._goodbye_s = header["begin_s"], header["goodbye_s"]
        self._waiting, self._ended = dict[str, Line](), False
        self._changed = threading.Condition()
        self._tracker: Tracker | None = None
        self._runs: dict[str, Child] = {}
        self._lock = FileLock(sender_lock())
        self._seen: dict[str, Line] = {}
        self._taken: dict[str, Status] = {}
        self._complained = ""

    def read(self) -> None:
        """Reads lines until there are no more; then the process ends in bounded time."""
        for text in sys.stdin:
            if not text.endswith("\n"):
                break  # who wrote it died, or left, in the middle of it
            line = json.loads(text)
            with self._changed:
                self._waiting[line["training"]["key"]] = line
                self._changed.notify()
        timer = threading.Timer(self._goodbye_s, self._leave)
        timer.daemon = True
        timer.start()
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _unlock(self) -> None:
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def _leave(self) -> None:
        for key, line in {**self._seen, **self._waiting}.items():
            if line["status"] == "FAILED" != self._taken.get(key):
                with suppress(OSError):
                    unsent.keep(self._address, line)
        self._unlock()
        self._complain(TrackingError(f"MLflow at {tracking_uri()} has not taken everything yet"))
        os._exit(1)

    def _complain(self, error: StudyError) -> None:
        """Prints a warning, but once and not at every report."""
        if (said := str(error)) != self._complained:
            rest = "`report` or `make publish` later sends what is missing"
            print(f"warning: {said}; {rest}", file=sys.stderr, flush=True)
        self._complained = said

    def send(self) -> None:
        """Sends until all has been read and sent; only failures if its input has ended by `begin_s`."""
        with self._changed:
            if self._begin_s and self._changed.wait_for(lambda: self._ended, self._begin_s):
                said = {line["status"] for line in self._waiting.values()}
                if "FAILED" not in said:  # `report` knows only of what has finished
                    return
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    break
                line = self._waiting.pop(key := next(iter(self._waiting)))
            self._seen[key] = line
            if not self._send(line):
                with self._changed:
                    self._waiting.setdefault(key, line)
                    if self._ended:
                        self._changed.wait(LAST_RETRY_S)
                    else:
                        self._changed.wait_for(lambda: self._ended, RETRY_S)
        for line in self._seen.values() if self._here else ():
            if line["status"] == "RUNNING":
                self._send({**line, "status": "KILLED"})
        if self._tracker is not None and self._here:
            with suppress(StudyError):  # the study goes on without it
                self._tracker.study().tags({SENDER: LEFT})
                if "FAILED" in {line["status"] for line in self._seen.values()}:
                    self._tracker.study().status("FAILED")  # until it goes on
        self._unlock()

    def _runs_now(self, run: Child) -> None:
        # on a cluster it lives whatever becomes of this process, and of one that trained it here before
        run.tags({SENDER: sender(Path(self._lock.lock_file)) if self._here else LEFT})
        run.status("RUNNING")

    def _send(self, line: Line) -> bool:
        """Tells whether MLflow has it."""
        training = line["training"]
        try:
            if self._tracker is None:
                storage = Storage()
                tracker = Tracker(self._address, storage.upload, storage)
                unsent.send(self._address, tracker)
                tracker.settle()
                if self._here:
                    self._lock.acquire(timeout=LOCK_S)
                    self._runs_now(tracker.study())
                self._tracker = tracker
            history = [Record(**record) for record in line["history"]]
            if (run := self._runs.get(training["key"])) is None:
                run = self._tracker.training(training, history)
                self._runs_now(run)
                self._runs[training["key"]] = run
            run.history(history, line["usage"])
            run.status(line["status"])
            self._taken[training["key"]] = line["status"]
            self._complained = ""
            return True
        except StudyError as error:
            self._complain(error)
            return False


def main() -> None:
    """Sends what standard input says."""
    sending = _Sending(json.loads(sys.stdin.readline()))
    threading.Thread(target=sending.read, daemon=True).start()
    sending.send()
    os._exit(0)  # not waiting for connections of MLflow's


if __name__ == "__main__":
    main()
