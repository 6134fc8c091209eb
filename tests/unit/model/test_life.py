"""The life of a ``LazyModel``: closing, callbacks, cancelling, threads and processes."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from typing import Any, Callable

import pytest
from answers import TEXT, greedy

from lazygguf import Cancelled, LazyModel


def test_a_closed_model_says_so(path: str) -> None:
    model = LazyModel(path, n_threads=1)
    chunks = model.create_completion(TEXT, stream=True)
    next(chunks)
    model.close()
    model.close()
    for use in (
        lambda: model.eval([1]),
        lambda: model.logits,
        lambda: model.n_tokens,
        lambda: model.reset(),
        lambda: model.tokenize(b"x"),
        lambda: model.detokenize([1]),
        lambda: model.create_completion("x"),
        lambda: next(chunks),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            use()
    model.cancel()


def test_a_model_cannot_be_pickled_or_copied(model: LazyModel) -> None:
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            act(model)


def test_a_half_consumed_stream_does_not_disturb_the_next_call(model: LazyModel) -> None:
    expected = greedy(model, "the dog ran")
    model.reset()
    old = model.create_completion(TEXT, stream=True, temperature=0)
    next(old)
    assert greedy(model, "the dog ran") == expected
    with pytest.raises(RuntimeError, match="used for something else"):
        list(old)


def test_a_closed_stream_leaves_the_model_consistent(dense_model: LazyModel) -> None:
    model = dense_model
    expected = greedy(model, max_tokens=20)
    model.reset()
    chunks = model.create_completion(TEXT, stream=True, temperature=0, max_tokens=20)
    next(chunks)
    next(chunks)
    chunks.close()
    assert greedy(model, max_tokens=20) == expected


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt()])
def test_what_the_progress_callback_raises_is_raised_and_nothing_was_read(
    dense_model: LazyModel, error: BaseException
) -> None:
    model = dense_model
    expected = greedy(model)
    before = model.n_tokens

    def fail(n_done: int, n_total: int) -> None:
        raise error

    model.progress_callback = fail
    with pytest.raises(type(error)):
        model.eval(model.tokenize(TEXT.encode()))
    assert model.n_tokens == before
    model.progress_callback = None
    assert greedy(model) == expected


def test_cancelling_from_the_callback_stops_the_reading(path: str) -> None:
    with LazyModel(path, n_threads=1, n_ubatch=32) as model:
        model.progress_callback = lambda n_done, n_total: model.cancel()
        with pytest.raises(Cancelled):
            model.eval(model.tokenize(TEXT.encode()))
        assert model.n_tokens == 0
        model.progress_callback = None
        model.eval(model.tokenize(TEXT.encode()))


@pytest.mark.parametrize("name", ["reset", "close", "eval"])
def test_using_the_model_from_its_callback_is_refused(path: str, name: str) -> None:
    with LazyModel(path, n_threads=1) as model:
        args = ([1],) if name == "eval" else ()
        model.progress_callback = lambda n_done, n_total: getattr(model, name)(*args)
        with pytest.raises(RuntimeError, match="in use"):
            model.eval(model.tokenize(TEXT.encode()))


def test_a_second_thread_is_refused_while_the_first_one_reads(path: str) -> None:
    with LazyModel(path, n_threads=1, n_ubatch=32) as model:
        inside, go_on = threading.Event(), threading.Event()

        def wait(n_done: int, n_total: int) -> None:
            inside.set()
            assert go_on.wait(30)

        model.progress_callback = wait
        reader = threading.Thread(target=model.eval, args=(model.tokenize(TEXT.encode()),))
        reader.start()
        assert inside.wait(30)
        uses: list[Callable[[], Any]] = [
            lambda: model.eval([1]),
            lambda: model.reset(),
            lambda: model.logits,
            lambda: model.close(),
        ]
        for use in uses:
            with pytest.raises(RuntimeError, match="in use"):
                use()
        go_on.set()
        reader.join()
        assert model.n_tokens == len(model.tokenize(TEXT.encode()))


def test_cancel_stops_a_reading_in_another_thread(path: str) -> None:
    with LazyModel(path, n_threads=1, n_ubatch=8) as model:
        inside = threading.Event()
        errors: list[BaseException] = []
        model.progress_callback = lambda n_done, n_total: inside.set()

        def read() -> None:
            try:
                for _ in range(1000):
                    model.eval(model.tokenize(TEXT.encode()))
                    model.reset()
            except BaseException as error:
                errors.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        assert inside.wait(30)
        while reader.is_alive():  # a cancel between two evals has nothing to stop
            model.cancel()
            reader.join(0.001)
        assert [type(error) for error in errors] == [Cancelled]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_model_of_the_parent_process_is_refused_in_a_child(model: LazyModel) -> None:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        said = b"no error"
        try:
            model.eval([1])
        except RuntimeError as error:
            said = str(error).encode()
        finally:
            os.write(write_end, said)
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    assert b"opened in another process" in os.read(read_end, 1000)
    os.close(read_end)
