// capi_params.h: what a caller of the C interface asks for, as the core takes it. Each function
// throws `invalid_argument` where a value is wrong.
#pragma once

#include <string>
#include <vector>

#include "api/lazygguf.h"
#include "kernels/kernel_speed.h"
#include "run/session.h"

namespace lazygguf {

// "a,b" as {"a", "b"}; NULL and "" as none.
std::vector<std::string> split(const char * text);

model_params read_params(const lazy_model_params & in);
// NULL gives a dense schedule. Whether the numbers fit a model is for check_schedule.
keep_schedule read_schedule(const lazy_schedule * schedule);

session_params read_params(const lazy_session_params & in, const hparams & hp);

// NULL as the defaults. What it points to must live as long as the eval.
eval_params read_params(const lazy_eval_params * in);

kernel_case read_kernel_case(const char * type_name, int64_t n_in, int64_t n_out, int64_t n_rows, bool is_ours,
                             int32_t n_threads);

} // namespace lazygguf
