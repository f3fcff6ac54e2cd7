"""Back ends that cannot be interrupted run in a child process, which is ended when a limit passes.

The child gets the model and the request on its standard input and answers on its standard output, both as
pickles of this package's own classes. Whatever the back end prints goes to the child's standard error.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from cosma.errors import CosmaError
from cosma.process import end, limit_memory, start_python
from cosma.solvers.result import SolverResult, Status, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from cosma.solvers.model import Model
    from cosma.solvers.request import Request

#: Seconds beyond the time limit for starting the process and for reporting its answer, before it is ended.
GRACE_S = 10.0
#: Seconds between two looks at whether to stop.
_POLL_S = 0.05


def run_in_child(model: Model, request: Request, stop: Callable[[], bool] | None) -> SolverResult:
    """Solve in a child process; see :func:`cosma.solvers.solve`."""
    # Its group is its own, so that CBC and the like, which are processes themselves, end with it.
    command = ["-c", "from cosma.solvers.child import main; main()"]
    process = start_python(command, errors=subprocess.PIPE)
    answer: list[tuple[bytes, bytes]] = []
    payload = pickle.dumps((model, request))
    reader = threading.Thread(target=lambda: answer.append(process.communicate(payload)), daemon=True)
    began = time.monotonic()
    reader.start()
    ended: Stop | None = None
    try:
        while True:
            reader.join(_POLL_S)
            if not reader.is_alive():
                break
            spent = time.monotonic() - began
            if stop is not None and stop():
                ended = Stop.INTERRUPT
            elif request.time_limit_s is not None and spent > request.time_limit_s + GRACE_S:
                ended = Stop.TIME
            if ended is not None:
                break
    finally:
        if reader.is_alive():
            end(process)
            reader.join()
    if ended is not None:
        return SolverResult(Status.UNKNOWN, ended, message="ended from outside before it reported")
    return _decode(process, answer, request)


def _decode(
    process: subprocess.Popen[bytes], answer: list[tuple[bytes, bytes]], request: Request
) -> SolverResult:
    output, errors = answer[0] if answer else (b"", b"")
    if process.returncode == 0 and output:
        result = pickle.loads(output)
        if isinstance(result, CosmaError):
            raise result
        assert isinstance(result, SolverResult)
        return result
    tail = errors.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
    if request.memory_limit_bytes is not None:
        return SolverResult(Status.UNKNOWN, Stop.MEMORY, message=tail[0])
    return SolverResult(Status.ERROR, Stop.FAILURE, message=f"{request.profile.back_end} failed: {tail[0]}")


def main() -> None:
    """Run in the child: read a request, solve it, write the result."""
    model, request = pickle.load(sys.stdin.buffer)
    # Output of the back end must not mix with the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if request.memory_limit_bytes is not None:
        limit_memory(request.memory_limit_bytes)
    from cosma.solvers.back_ends import back_end

    result: SolverResult | CosmaError
    try:
        result = back_end(request.profile)(model, request, None)
    except CosmaError as error:
        result = error
    pickle.dump(result, answer)
    answer.close()
    # Some back ends keep threads alive that would delay the exit.
    os._exit(0)
