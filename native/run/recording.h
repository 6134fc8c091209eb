// recording.h: what the asking rows of a dense session look at, layer by layer and head by head.
//
// Owns the form in which attention is handed out. A step without a request records nothing; only the asking rows'
// attention leaves a graph.
#pragma once

#include <vector>

#include "run/compute.h"
#include "run/eval_params.h"

namespace lazygguf {

class recording {
  public:
    // `wanted` has been checked and outlives this; `question` asks. The context has n_tokens with the step.
    recording(const attention_request & wanted, position_span question, int32_t n_tokens, int n_head);

    // Positions that ask, ascending; none where nothing is wanted.
    const std::vector<int32_t> & query() const { return query_; }
    // Has a graph of `n_query` asking rows give what is wanted.
    void ask(graph_shape & shape, int n_query) const;
    // Adds what a ubatch gave, by position.
    void add(compute & done, const segment_graph & graph, const graph_inputs & in);
    // The step went well: writes the record to where it is wanted.
    void hand_out() const;

  private:
    const attention_request & wanted_;
    std::vector<int32_t> query_;
    size_t n_tokens_;
    size_t n_head_;             // of the model
    std::vector<float> record_; // as the request's `out`, not yet divided where it is a mean over asking rows
};

} // namespace lazygguf
