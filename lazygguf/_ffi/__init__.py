"""The binding to the native core: handles become classes, status codes become exceptions.

Owns every call into ``lazygguf._native``; nothing outside imports that. Knows nothing about text, chat or sampling.
"""

from .devices import Device, has_rpc, list_devices, serve_rpc
from .file import NativeFile, TensorInfo, TensorRule, shape_tensors
from .isa import isa, isa_names, kernel_seconds
from .library import check, ggml_version
from .model import GPU_LAYERS_AUTO, NativeModel, Placement
from .selection import count_kept, keep_count
from .session import AttentionRequest, NativeSession, ProgressCallback, StepStats

__all__ = [
    "GPU_LAYERS_AUTO",
    "AttentionRequest",
    "Device",
    "NativeFile",
    "NativeModel",
    "NativeSession",
    "Placement",
    "ProgressCallback",
    "StepStats",
    "TensorInfo",
    "TensorRule",
    "check",
    "count_kept",
    "ggml_version",
    "has_rpc",
    "isa",
    "isa_names",
    "keep_count",
    "kernel_seconds",
    "list_devices",
    "serve_rpc",
    "shape_tensors",
]
