// attention_scores.cpp: K times queries, without softmax, in tiles of the cache. A job is one tile of one K head.

#include "simd/kernel_set.h"

#include <algorithm>

#include "simd/kv_tile.h"

namespace lazygguf::LAZY_ISA {

using namespace kv_tile;

namespace {

struct products_op {
    const ggml_tensor * q;
    const ggml_tensor * k;
    ggml_tensor * dst;
    int n_embd_head;
    int group;     // query heads of a K head
    int n_queries; // of a K head: the asking rows of every head of its group
    int n_kv;

    explicit products_op(ggml_tensor * t)
        : q(t->src[0]), k(t->src[1]), dst(t), n_embd_head(static_cast<int>(q->ne[0])),
          group(static_cast<int>(q->ne[2] / k->ne[2])), n_queries(group * static_cast<int>(q->ne[1])),
          n_kv(static_cast<int>(k->ne[1])) {}
    int n_tiles() const { return (n_kv + TILE - 1) / TILE; }
    // Query i of a K head: row i / group of head i % group. In q and in dst alike.
    int row(int i) const { return i / group; }
    int head(int head_kv, int i) const { return head_kv * group + i % group; }
};

struct workspace {
    aligned_floats q, k, out;
};

void run_tile(const products_op & op, workspace & w, int head_kv, int begin) {
    const int d = op.n_embd_head;
    const int n = std::min(TILE, op.n_kv - begin);
    for (int i = 0; i < op.n_queries; ++i) {
        const auto * q = reinterpret_cast<const float *>(at(op.q, op.row(i), op.head(head_kv, i)));
        std::copy(q, q + d, w.q.data() + i * d);
    }
    unpack_columns(op.k, head_kv, begin, n, w.k.data());
    product(w.out.data(), TILE, w.q.data(), d, w.k.data(), TILE, op.n_queries, d, TILE, false);
    for (int i = 0; i < op.n_queries; ++i) {
        const float * out = w.out.data() + i * TILE;
        char * dst = const_cast<char *>(at(op.dst, op.row(i), op.head(head_kv, i)));
        std::copy(out, out + n, reinterpret_cast<float *>(dst) + begin);
    }
}

void multiply_tiles(ggml_tensor * dst, int ith, int nth, void * /*unused*/) {
    const products_op op(dst);
    thread_local workspace w;
    w.q.resize(static_cast<size_t>(op.n_queries * op.n_embd_head));
    w.k.resize(static_cast<size_t>(op.n_embd_head * TILE));
    w.out.resize(static_cast<size_t>(op.n_queries * TILE));
    const int n_jobs = op.n_tiles() * static_cast<int>(op.k->ne[2]);
    for (int i = ith; i < n_jobs; i += nth) {
        run_tile(op, w, i % static_cast<int>(op.k->ne[2]), i / static_cast<int>(op.k->ne[2]) * TILE);
    }
}

} // namespace

void key_products(ggml_tensor * dst, int ith, int nth, void * unused) { multiply_tiles(dst, ith, nth, unused); }

} // namespace lazygguf::LAZY_ISA
