// attention_scores.cpp: how much each query looks at every entry of kv_order, in three ops: Q * K in tiles, a softmax
// over what a row sees, and the sum over heads. Each number depends on its own row and entry order alone.

#include "simd/kernel_set.h"

#include <cmath>
#include <cstring>

#include "simd/kv_tile.h"
#include "simd/visible.h"

namespace lazygguf::LAZY_ISA {

using namespace float_lanes;

namespace {

constexpr int SUM_COLUMNS = 1024; // of a job of sum_heads

struct products_op {
    const ggml_tensor * q;
    const ggml_tensor * k;
    const int32_t * order;
    const ggml_tensor * visible;
    ggml_tensor * dst;
    int n_values;
    int group; // query heads of a K head
    int n_rows;
    int n_kv;
    float softcap;

    products_op(ggml_tensor * t, const attention_settings & settings)
        : q(t->src[0]), k(t->src[1]), order(static_cast<const int32_t *>(t->src[2]->data)), visible(t->src[3]), dst(t),
          n_values(static_cast<int>(q->ne[0])), group(static_cast<int>(q->ne[1] / k->ne[2])),
          n_rows(static_cast<int>(q->ne[2])), n_kv(static_cast<int>(t->ne[0])), softcap(settings.softcap) {}
};

struct workspace {
    scratch<float> q_buffer, k_buffer, row_buffer;
    float scores[BLOCK_ROWS * TILE];
};

// Queries [first, first + m) of a K head, query i being head i % group of row i / group, and n entries from `tile` on.
void multiply_block(const products_op & op, workspace & w, int head_kv, int first, int m, entry_span tile) {
    const float scale = 1.0F / std::sqrt(static_cast<float>(op.n_values)) * (op.softcap == 0.0F ? LOG2_E : 1.0F);
    float * q = w.q_buffer.reserve(static_cast<size_t>(BLOCK_ROWS * op.n_values));
    const float * k = w.k_buffer.reserve(static_cast<size_t>(tile_size(column_rows(op.n_values), TILE)));
    for (int i = 0; i < m; ++i) {
        const auto * from = reinterpret_cast<const float *>(
            at(op.q, head_kv * op.group + (first + i) % op.group, (first + i) / op.group));
        for (int j = 0; j < op.n_values; ++j) {
            q[i * op.n_values + j] = from[j] * scale;
        }
    }
    const int n = tile.end - tile.begin;
    product({w.scores, TILE, q, op.n_values, k, panel_stride(column_rows(op.n_values)), op.n_values, /*adds=*/false}, m,
            vecs_of(n));
    for (int i = 0; i < m; ++i) {
        float * scores = w.scores + i * TILE;
        for (int j = 0; op.softcap != 0.0F && j < n; j += LANES) {
            store(scores + j, mul(soft_capped(load(scores + j), op.softcap), splat(LOG2_E)));
        }
        char * to = at(op.dst, (first + i) / op.group, head_kv * op.group + (first + i) % op.group);
        std::memcpy(reinterpret_cast<float *>(to) + tile.begin, scores, static_cast<size_t>(n) * sizeof(float));
    }
}

void multiply_tile(const products_op & op, workspace & w, int head_kv, int begin) {
    const entry_span rows = rows_that_see(op.visible, 0, op.n_rows, begin, begin + TILE);
    if (rows.begin == rows.end) {
        return;
    }
    const int end = smaller(visible_to(op.visible, rows.end - 1).end, begin + TILE);
    unpack_columns({op.k, op.order + begin, end - begin, head_kv}, w.row_buffer,
                   w.k_buffer.reserve(static_cast<size_t>(tile_size(column_rows(op.n_values), TILE))));
    for (int i = rows.begin * op.group; i < rows.end * op.group; i += BLOCK_ROWS) {
        multiply_block(op, w, head_kv, i, smaller(BLOCK_ROWS, rows.end * op.group - i), {begin, end});
    }
}

// A few scores as a vector, with others where there are none.
vec load_some(const float * p, int first, entry_span seen, float other) {
    if (first >= seen.begin && first + LANES <= seen.end) {
        return load(p + first);
    }
    float lanes[LANES];
    for (int i = 0; i < LANES; ++i) {
        lanes[i] = first + i >= seen.begin && first + i < seen.end ? p[first + i] : other;
    }
    return load(lanes);
}

void store_some(float * p, int first, int n, vec x) {
    if (first + LANES <= n) {
        store(p + first, x);
        return;
    }
    float lanes[LANES];
    store(lanes, x);
    std::memcpy(p + first, lanes, static_cast<size_t>(n - first) * sizeof(float));
}

// Softmax of a row of n scores over what is seen; 0 elsewhere. The sum is taken in pieces of a chunk.
void soften_row(const float * scores, float * out, int n, entry_span seen) {
    const int begin = seen.begin / LANES * LANES;
    vec most = splat(-HUGE_VALF);
    for (int i = begin; i < seen.end; i += LANES) {
        most = max(most, load_some(scores, i, seen, -HUGE_VALF));
    }
    const float top = max_of(most);
    double sum = 0.0;
    for (int chunk = begin / ATTENTION_CHUNK * ATTENTION_CHUNK; chunk < seen.end; chunk += ATTENTION_CHUNK) {
        vec total = zeros();
        for (int i = larger(chunk, begin); i < smaller(chunk + ATTENTION_CHUNK, seen.end); i += LANES) {
            const vec weight = exp2_of(sub(load_some(scores, i, seen, top - 200.0F), splat(top)));
            store_some(out, i, n, weight);
            // what is hidden weighs nothing
            total = add(total, load_some(out, i, seen, 0.0F));
        }
        sum += static_cast<double>(sum_of(total));
    }
    const auto factor = static_cast<float>(1.0 / sum);
    for (int i = seen.begin; i < seen.end; ++i) {
        out[i] *= factor;
    }
    for (int i = 0; i < seen.begin; ++i) {
        out[i] = 0.0F;
    }
    for (int i = seen.end; i < n; ++i) {
        out[i] = 0.0F;
    }
}

} // namespace

// q [n_embd_head, n_head, n_query], k, kv_order, visible of the queries -> [n_kv, n_query, n_head], what is not seen
// left as it was; in powers of 2
void key_products(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const products_op op(dst, *static_cast<attention_settings *>(userdata));
    thread_local workspace w;
    const int n_heads = static_cast<int>(op.k->ne[2]);
    const int n_jobs = (op.n_kv + TILE - 1) / TILE * n_heads;
    for (int i = ith; i < n_jobs; i += nth) {
        multiply_tile(op, w, i % n_heads, i / n_heads * TILE);
    }
}

// What key_products gives, visible of the queries -> the same shape
void soften_scores(ggml_tensor * dst, int ith, int nth, void * /*unused*/) {
    for (int64_t i = ith; i < dst->ne[1] * dst->ne[2]; i += nth) {
        const int64_t row = i % dst->ne[1];
        const int64_t head = i / dst->ne[1];
        soften_row(reinterpret_cast<const float *>(at(dst->src[0], row, head)),
                   reinterpret_cast<float *>(at(dst, row, head)), static_cast<int>(dst->ne[0]),
                   visible_to(dst->src[1], static_cast<int>(row)));
    }
}

// [n_kv, n_query, n_head] -> [n_kv, n_query]
void sum_heads(ggml_tensor * dst, int ith, int nth, void * /*unused*/) {
    const ggml_tensor * scores = dst->src[0];
    const int n_kv = static_cast<int>(dst->ne[0]);
    const int n_parts = (n_kv + SUM_COLUMNS - 1) / SUM_COLUMNS;
    for (int64_t i = ith; i < dst->ne[1] * n_parts; i += nth) {
        const int64_t row = i / n_parts;
        const int begin = static_cast<int>(i % n_parts) * SUM_COLUMNS;
        const int n = smaller(SUM_COLUMNS, n_kv - begin);
        float * out = reinterpret_cast<float *>(at(dst, row, 0)) + begin;
        std::memcpy(out, reinterpret_cast<const float *>(at(scores, row, 0)) + begin,
                    static_cast<size_t>(n) * sizeof(float));
        for (int64_t head = 1; head < scores->ne[2]; ++head) {
            const float * from = reinterpret_cast<const float *>(at(scores, row, head)) + begin;
            for (int j = 0; j < n; ++j) {
                out[j] += from[j];
            }
        }
    }
}

} // namespace lazygguf::LAZY_ISA
