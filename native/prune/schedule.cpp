// schedule.cpp: checks of keep schedules, and what they promise.

#include "prune/schedule.h"

#include <algorithm>

#include "base/error.h"

namespace lazygguf {
namespace {

void check(bool ok, const std::string & message) {
    if (!ok) {
        fail(status::invalid_argument, "keep schedule: " + message);
    }
}

// il_begin: the first layer of the segment that the point ends.
void check_scored(const pruning_point & p, int il_begin, int n_head) {
    for (const scored_layer & scored : p.scored) {
        check(scored.il >= il_begin && scored.il <= p.il,
              format("%slayer %d scores after layer %d, expected a layer in [%d, %d]",
                     scored.heads.empty() ? "" : "a head of ", scored.il, p.il, il_begin, p.il));
        for (const int head : scored.heads) {
            check(head >= 0 && head < n_head, format("head is %d, expected a value in [0, %d]", head, n_head - 1));
        }
    }
}

void check_point(const pruning_point & p, int il_begin, int n_layer, int n_head) {
    check(p.il >= -1 && p.il <= n_layer - 2,
          format("il is %d, expected a layer in [0, %d] for a model of %d layers, or -1", p.il, n_layer - 2, n_layer));
    check(p.keep > 0.0 && p.keep <= 1.0, format("keep is %g, expected a value in (0, 1]", p.keep));
    check(p.n_query >= 0 && p.n_query <= MAX_QUERY,
          format("n_query is %d, expected a value in [0, %d]", p.n_query, MAX_QUERY));
    check(p.pool >= 1 && p.pool % 2 == 1, format("pool is %d, expected an odd number", p.pool));
    check(p.mass > 0.0 && p.mass <= 1.0, format("mass is %g, expected a value in (0, 1]", p.mass));
    check(p.keep_min >= 0.0 && p.keep_min <= p.keep,
          format("keep_min is %g, expected a value in [0, %g]", p.keep_min, p.keep));
    if (p.il >= 0) {
        check_scored(p, il_begin, n_head);
    }
}

} // namespace

void check_schedule(const keep_schedule & schedule, int n_layer, int n_head) {
    check(schedule.points.size() < MAX_SEGMENTS,
          format("%zu pruning points, expected at most %d", schedule.points.size(), MAX_SEGMENTS - 1));
    check(schedule.n_sink >= 0, format("n_sink is %d, expected at least 0", schedule.n_sink));
    check(schedule.min_prompt >= 0, format("min_prompt is %d, expected at least 0", schedule.min_prompt));
    check(schedule.max_revive >= -1, format("max_revive is %d, expected at least -1", schedule.max_revive));
    check(schedule.revive_margin >= 0.0, format("revive_margin is %g, expected at least 0", schedule.revive_margin));
    check(schedule.mean_revive == 0.0 || (schedule.mean_revive > 0.0 && schedule.max_revive >= 0),
          format("mean_revive is %g with max_revive %d, expected 0, or more with a limit", schedule.mean_revive,
                 schedule.max_revive));
    std::vector<const pruning_point *> points;
    if (schedule.entry) {
        points.push_back(&*schedule.entry);
    }
    for (const pruning_point & p : schedule.points) {
        points.push_back(&p);
    }
    for (size_t i = 0; i < points.size(); ++i) {
        const pruning_point & p = *points[i];
        const int before_il = i == 0 ? -2 : points[i - 1]->il;
        check(i == 0 || p.il > before_il, format("il is %d after %d, expected ascending layers", p.il, before_il));
        check_point(p, std::max(before_il + 1, 0), n_layer, n_head);
        check(i == 0 || p.keep <= points[i - 1]->keep,
              format("keep is %g after %g, expected it never to rise", p.keep, i == 0 ? 1.0 : points[i - 1]->keep));
    }
}

std::vector<double> layer_shares(const keep_schedule & schedule, int n_layer) {
    std::vector<double> share(static_cast<size_t>(n_layer), 1.0);
    for (const pruning_point & p : schedule.points) {
        std::fill(share.begin() + p.il + 1, share.end(), p.keep);
    }
    return share;
}

} // namespace lazygguf
