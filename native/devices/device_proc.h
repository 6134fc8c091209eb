// device_proc.h: functions that a device's backend has beside ggml's common interface.
#pragma once

#include <ggml-cpp.h>

namespace lazygguf {

// The function of that name, null where the backend has none. F is its pointer type.
template <typename F> F device_proc(ggml_backend_dev_t dev, const char * name) {
    return reinterpret_cast<F>(ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(dev), name));
}

} // namespace lazygguf
