// schedule.cpp: checks of keep schedules that come through the C interface.

#include "schedule.h"

#include <algorithm>
#include <map>

#include "error.h"

namespace lazygguf {
namespace {

void check(bool ok, const std::string & message) {
    if (!ok) {
        fail(LAZY_STATUS_INVALID_ARGUMENT, "keep schedule: " + message);
    }
}

// Heads grouped by their layers, ascending, or the mean over the last n_layers; il_begin is the segment's first.
std::vector<scored_layer> read_scored(const lazy_point & p, int il_begin, const hparams & hp) {
    std::vector<scored_layer> out;
    for (int il = p.il - p.n_layers + 1; p.n_heads == 0 && il <= p.il; ++il) {
        out.push_back({il, {}});
    }
    std::map<int, std::vector<int>> by_layer;
    for (int i = 0; i < p.n_heads; ++i) {
        check(p.heads[i] >= 0 && p.heads[i] < hp.n_head,
              format("head is %d, expected a value in [0, %d]", p.heads[i], hp.n_head - 1));
        const int il = p.head_layers == nullptr ? p.il : p.head_layers[i];
        check(
            il >= il_begin && il <= p.il,
            format("a head of layer %d scores after layer %d, expected a layer in [%d, %d]", il, p.il, il_begin, p.il));
        by_layer[il].push_back(p.heads[i]);
    }
    for (auto & [il, heads] : by_layer) {
        out.push_back({il, std::move(heads)});
    }
    return out;
}

// il_begin: the first layer of the segment that the point ends.
pruning_point read_point(const lazy_point & p, int il_begin, const hparams & hp) {
    check(p.il >= -1 && p.il <= hp.n_layer - 2,
          format("il is %d, expected a layer in [0, %d] for a model of %d layers, or -1", p.il, hp.n_layer - 2,
                 hp.n_layer));
    check(p.keep > 0.0 && p.keep <= 1.0, format("keep is %g, expected a value in (0, 1]", p.keep));
    check(p.n_query >= 0 && p.n_query <= LAZY_MAX_QUERY,
          format("n_query is %d, expected a value in [0, %d]", p.n_query, LAZY_MAX_QUERY));
    check(p.pool >= 1 && p.pool % 2 == 1, format("pool is %d, expected an odd number", p.pool));
    check(p.n_heads >= 0 && (p.heads == nullptr) == (p.n_heads == 0), "heads and n_heads disagree");
    check(p.mass > 0.0 && p.mass <= 1.0, format("mass is %g, expected a value in (0, 1]", p.mass));
    check(p.keep_min >= 0.0 && p.keep_min <= p.keep,
          format("keep_min is %g, expected a value in [0, %g]", p.keep_min, p.keep));
    check(p.il < 0 || (p.n_layers >= 1 && p.n_layers <= p.il + 1 - il_begin),
          format("n_layers is %d after layer %d, expected a value in [1, %d]", p.n_layers, p.il, p.il + 1 - il_begin));
    const std::vector<scored_layer> scored = p.il < 0 ? std::vector<scored_layer>() : read_scored(p, il_begin, hp);
    return {p.il, p.keep, scored, p.n_query, p.pool, p.mass, p.keep_min, p.query_max};
}

} // namespace

keep_schedule read_schedule(const lazy_schedule * schedule, const hparams & hp) {
    keep_schedule out;
    if (schedule == nullptr) {
        return out;
    }
    check(schedule->version == LAZY_VERSION, format("version is %d, expected %d", schedule->version, LAZY_VERSION));
    check(schedule->n_points >= 0 && schedule->n_points < LAZY_MAX_SEGMENTS,
          format("%d pruning points, expected at most %d", schedule->n_points, LAZY_MAX_SEGMENTS - 1));
    check(schedule->n_sink >= 0, format("n_sink is %d, expected at least 0", schedule->n_sink));
    check(schedule->min_prompt >= 0, format("min_prompt is %d, expected at least 0", schedule->min_prompt));
    check(schedule->max_revive >= -1, format("max_revive is %d, expected at least -1", schedule->max_revive));
    check(schedule->revive_margin >= 0.0, format("revive_margin is %g, expected at least 0", schedule->revive_margin));
    check(schedule->mean_revive == 0.0 || (schedule->mean_revive > 0.0 && schedule->max_revive >= 0),
          format("mean_revive is %g with max_revive %d, expected 0, or more with a limit", schedule->mean_revive,
                 schedule->max_revive));
    for (int i = 0; i < schedule->n_points; ++i) {
        const lazy_point & point = schedule->points[i];
        const int before_il = i == 0 ? -2 : schedule->points[i - 1].il;
        check(i == 0 || point.il > before_il,
              format("il is %d after %d, expected ascending layers", point.il, before_il));
        const pruning_point p = read_point(point, std::max(before_il + 1, 0), hp);
        if (i > 0) {
            const lazy_point & before = schedule->points[i - 1];
            check(p.keep <= before.keep, format("keep is %g after %g, expected it never to rise", p.keep, before.keep));
        }
        if (p.il < 0) {
            out.entry = p;
        } else {
            out.points.push_back(p);
        }
    }
    out.n_sink = schedule->n_sink;
    out.min_prompt = schedule->min_prompt;
    out.max_revive = schedule->max_revive;
    out.revive_margin = schedule->revive_margin;
    out.mean_revive = schedule->mean_revive;
    out.decode_cached = schedule->decode_cached;
    out.dense_unasked = schedule->dense_unasked;
    return out;
}

std::vector<double> layer_shares(const keep_schedule & schedule, int n_layer) {
    std::vector<double> share(static_cast<size_t>(n_layer), 1.0);
    for (const pruning_point & p : schedule.points) {
        std::fill(share.begin() + p.il + 1, share.end(), p.keep);
    }
    return share;
}

} // namespace lazygguf
