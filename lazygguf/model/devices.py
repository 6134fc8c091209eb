"""Devices and layers as users name them: what the words mean, which do not go together, and the list of devices.

Which layer runs on which device is decided in ``native/devices``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, Union

from .._ffi import GPU_LAYERS_AUTO, Device, list_devices
from .._ffi.rpc import Servers, parse_servers
from .._names import split_names
from .._numbers import as_integer

ALL_LAYERS = -1
PLACEMENTS = ("work", "last")
NO_DEVICE = "none"
_LAYER_WORDS = {"all": ALL_LAYERS, "auto": GPU_LAYERS_AUTO}


def layer_count(value: Union[int, str], name: str = "n_gpu_layers") -> int:
    """The number that ``n_gpu_layers``, or the option of this name, stands for: itself, "all" or "auto".

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, str) and value in _LAYER_WORDS:
        return _LAYER_WORDS[value]
    number = as_integer(value)
    if number is None or not ALL_LAYERS <= number < 2**31:
        raise ValueError(f"{name} is {value!r}, expected an integer >= -1 (-1 is all), 'all' or 'auto'")
    return number


def device_names(device: Union[str, Sequence[str], None]) -> Optional[str]:
    """Names of devices as one text with commas; None is every GPU.

    Raises:
        ValueError: a name is empty, or "none" stands beside others.
        TypeError: neither text nor a list of texts.
    """
    if device is None:
        return None
    names = split_names("device", device)
    alone = NO_DEVICE not in names or len(names) == 1
    if not names or not all(names) or any("," in name for name in names) or not alone:
        raise ValueError(f"device is {device!r}, expected names of devices such as 'Vulkan0', or '{NO_DEVICE}'")
    return ",".join(names)


def check_request(n_gpu_layers: int, device: Optional[str], rpc_servers: Sequence[str]) -> None:
    """Raises ValueError where devices are named and no layer is to go there."""
    if n_gpu_layers == 0 and (rpc_servers or device not in (None, NO_DEVICE)):
        named = f"rpc_servers {','.join(rpc_servers)}" if rpc_servers else f"device {device!r}"
        raise ValueError(
            f"{named} is given, but n_gpu_layers is 0: no layer would run there; say how many (-1 or 'all': all)"
        )
    if rpc_servers and device == NO_DEVICE:
        raise ValueError(f"rpc_servers {','.join(rpc_servers)} is given, but device is '{NO_DEVICE}': give one of them")


def no_gpu_asked(device: Union[str, Sequence[str], None], rpc_servers: Sequence[str]) -> bool:
    """Whether no device is named and there is no GPU: -1 layers, as programs for llama_cpp ask for, are none then."""
    return device is None and not rpc_servers and not any(found.type in ("GPU", "IGPU") for found in list_devices([]))


def device_table(rpc_servers: Servers = None) -> str:
    """The devices as ``--list-devices`` prints them."""
    return "\n".join(_line(device) for device in list_devices(parse_servers(rpc_servers)))


def _line(device: Device) -> str:
    mib = 1024 * 1024
    memory = f"{device.memory_total // mib} MiB, {device.memory_free // mib} MiB free"
    return f"{device.name:10} {device.type:5} {device.description} ({memory})"
