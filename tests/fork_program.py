"""A program whose child processes answer, each start method in turn; tests/unit/model/test_fork.py runs it.

python fork_program.py MODEL.gguf {fork,forkserver,spawn,prefork,loaded,twice,thread}
"""

import itertools
import multiprocessing
import os
import sys
import threading

from lazygguf import LazyModel

PATH, HOW = sys.argv[1:3]


def answer(path: str) -> list[int]:
    """Two threads read, then some tokens are chosen."""
    with LazyModel(path, n_ctx=64, n_threads=2, keep="off") as model:
        return list(itertools.islice(model.generate(list(range(3, 40)), temp=0), 2))


def forked(path: str, expected: list[int], depth: int = 0) -> int:
    """Status of a child that opens the model itself; the child of a child with depth 1."""
    child = os.fork()
    if child == 0:
        status = 3
        try:
            status = int(answer(path) != expected) or (forked(path, expected, depth - 1) if depth else 0)
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def loaded(path: str) -> int:
    """Status of a child that uses its parent's model, which has read (gunicorn's preload_app)."""
    with LazyModel(path, n_ctx=64, n_threads=2, keep="off") as model:
        model.eval(list(range(3, 40)))
        child = os.fork()
        if child == 0:
            status = 3
            try:
                model.eval([5])
            except RuntimeError as error:
                status = 0 if "opened in another process" in str(error) and "open it" in str(error) else 4
            finally:
                os._exit(status)
        status = os.waitpid(child, 0)[1]
        model.eval([5])  # the parent's model is as it was
        return status


def main() -> int:
    expected = answer(PATH)
    if HOW in ("fork", "forkserver", "spawn"):
        with multiprocessing.get_context(HOW).Pool(2) as pool:
            return int(pool.map(answer, [PATH] * 3) != [expected] * 3)
    if HOW == "loaded":
        return loaded(PATH)
    if HOW == "thread":  # the fork comes from a thread, as in a server that restarts its workers
        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(forked(PATH, expected)))
        thread.start()
        thread.join()
        return statuses[0]
    return forked(PATH, expected, depth=1 if HOW == "twice" else 0)


if __name__ == "__main__":
    sys.exit(main())
