// masks.h: which K/V rows each row of a ubatch may look at.
//
// A row looks at positions up to its own, those within the layer's window where it has one. One mask serves all layers
// with the same device and window. The CPU's come from the host; the others are made where they are used, from two
// vectors of positions: a mask is as large as the hidden rows, and would cross to each device.
#pragma once

#include "graph/graph_state.h"

namespace lazygguf {

// Makes every mask that the segment's layers need.
void build_masks(graph_state & g);

// The mask of a layer.
ggml_tensor * mask_of(const graph_state & g, int il);

// After allocation: fills the masks and the positions they are made from.
void set_masks(const graph_state & g, const graph_inputs & in);

} // namespace lazygguf
