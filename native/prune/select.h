// select.h: which tokens go on. Floats in, positions out.
//
// Owns the selection rule and its tie rule: higher score first, at equal scores the earlier position. No ggml, no
// cache.
#pragma once

#include <cstdint>
#include <vector>

namespace lazygguf {

// A token that is a candidate at a pruning point.
struct candidate {
    int32_t pos;
    float score;       // higher = keep
    bool is_protected; // never pruned: sinks, query rows, the newest token
};

// Replaces each score by the mean score of the candidates within pool/2 positions of it (itself included).
// `tokens` ascends by position; pool is odd.
void pool_scores(std::vector<candidate> & tokens, int pool);

// A token that is scored from outside, before layer 0. A token with a non-finite score is always kept.
candidate outside_candidate(int32_t pos, float score, bool is_protected);

// How many of n_tokens may go on: floor(keep * n_tokens), safe against 0.29 * 100 = 28.999...
int32_t keep_count(double keep, int32_t n_tokens);

// How much goes on at a pruning point.
struct keep_share {
    double keep;     // of the tokens in the context, at most
    double keep_min; // of the tokens in the context, at least
    double mass;     // of the candidates' scores; 1: as many as `keep` allows
};

// How many of the candidates go on, protected ones included, in a context of n_tokens: the fewest so that the best of
// the others hold `mass` of the others' scores; at least keep_min, at most keep.
int32_t count_kept(const std::vector<candidate> & tokens, const keep_share & share, int32_t n_tokens);

// Keeps the protected candidates and the best of the rest, n_keep in all (more where more are protected).
// Ascends by position, as the input does.
std::vector<candidate> select(const std::vector<candidate> & tokens, int32_t n_keep);

// The lowest score among those that are not protected; 0 where all are.
float worst_score(const std::vector<candidate> & tokens);

// The n_max best of the candidates, ascending by position. A negative n_max means all.
std::vector<candidate> best(const std::vector<candidate> & tokens, int32_t n_max);

} // namespace lazygguf
