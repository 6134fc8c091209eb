// masks.h: which K/V rows each row of a ubatch may look at.
//
// A row looks at positions up to its own, those within the layer's window where it has one. Our own attention gets the
// K/V rows by ascending position and where in that order each row begins and ends to see. ggml's gets masks, one for
// all layers with the same device and window. The CPU's come from the host; the others are made where they are used,
// from two vectors of positions: a mask is as large as the hidden rows, and would cross to each device.
#pragma once

#include "graph/graph_state.h"

namespace lazygguf {

// Makes every mask, and every input of that kind, that the segment's layers need.
void build_masks(graph_state & g);

// The mask of a layer that ggml attends in.
ggml_tensor * mask_of(const graph_state & g, int il);

// What a layer's rows see, where our own attention runs it.
kv_entries entries_of(const graph_state & g, int il);

// After allocation: fills the inputs and the masks that come from the host.
void set_masks(const graph_state & g, const graph_inputs & in);

} // namespace lazygguf
