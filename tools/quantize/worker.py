"""The process that runs llama.cpp's quantizer: job as JSON on stdin, log lines on stdout.

It is a process of its own because llama_model_quantize can be neither cancelled nor trusted not to end the
process: the parent kills it on Ctrl-C and reports its death. Exit code: the quantizer's.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from .imatrix_file import read_imatrix


def main() -> int:
    """Runs one job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    job = json.load(sys.stdin)
    log = _forward_log()
    params = llama_cpp.llama_model_quantize_default_params()
    keep_alive = _fill(params, job)
    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    status = llama_cpp.llama_model_quantize(
        os.fsencode(job["source"]), os.fsencode(job["target"]), ctypes.byref(params)
    )
    llama_cpp.llama_log_set(llama_cpp.llama_log_callback(lambda *_: None), ctypes.c_void_p(0))
    del keep_alive
    return int(status)


def _forward_log() -> Any:
    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def forward(level: int, text: bytes, _: Any) -> None:
        try:
            os.write(1, text)
        except OSError:  # the parent is gone: nobody wants the result
            os._exit(1)

    return forward


def _fill(params: Any, job: dict[str, Any]) -> Any:
    """Sets the parameters; what it returns must live as long as they do."""
    params.ftype = job["ftype"]
    for flag in ("only_copy", "pure", "allow_requantize", "quantize_output_tensor", "dry_run"):
        setattr(params, flag, job[flag])
    params.nthread = job["n_threads"]
    for key in ("output_tensor_type", "token_embedding_type"):
        if job[key] is not None:
            setattr(params, key, job[key])
    if job["imatrix"] is None:
        return None
    values = read_imatrix(Path(job["imatrix"]))
    array = (llama_cpp.llama_model_imatrix_data * (len(values) + 1))()  # the last one, all zero, ends the list
    names = [name.encode() for name in values]
    for entry, name, data in zip(array, names, values.values()):
        entry.name, entry.size = name, data.size
        entry.data = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    params.imatrix = array
    return array, names, [np.ascontiguousarray(data) for data in values.values()], values
