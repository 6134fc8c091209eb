// eval_params.h: what a caller asks of a step, and whether a session can do it.
//
// Owns the checks of arguments: a failed ggml assertion ends the process, so nothing that a caller chose reaches a
// graph unchecked.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "prune/policy.h"

namespace lazygguf {

// What the asking rows look at, for those who study it.
struct attention_request {
    std::vector<int> layers; // ascending; empty: none
    bool by_head = false;    // else the mean over heads
    bool by_query = false;   // else the mean over asking rows; by_head is by_query too
    float * out = nullptr;   // by_head (n_layers, n_query, n_head, n_tokens), by_query (n_layers, n_query, n_tokens),
                             // else (n_layers, n_tokens)
    int64_t n_out = 0;
};

struct eval_params {
    step_hints hints;
    std::function<bool(int32_t n_done, int32_t n_total)> progress; // may be empty; false cancels
    attention_request attention;                                   // of the rows of hints.question
};

// What the arguments of a step must fit.
struct eval_limits {
    const keep_schedule & schedule;
    int32_t n_past; // tokens in the context
    int32_t n_ctx;
    int32_t n_vocab;
    int n_head;
    int n_layer; // layers that the session reads
};

// Fails with invalid_argument or context_full and the value that does not fit.
void check_eval(const int32_t * tokens, int32_t n, const eval_params & params, const eval_limits & limits);

} // namespace lazygguf
