// cells.cpp: bookkeeping of rows and positions.

#include "prune/cells.h"

#include <algorithm>

namespace lazygguf {

cell_map::cell_map(std::vector<int32_t> cells) : cells_(std::move(cells)) {
    const auto last = std::max_element(cells_.begin(), cells_.end());
    rows_.assign(last == cells_.end() ? 0 : static_cast<size_t>(*last) + 1, -1);
    for (int32_t row = 0; row < n_rows(); ++row) {
        const int32_t pos = pos_of(row);
        if (pos < 0) {
            free_.insert(free_.end(), row);
        } else {
            rows_[static_cast<size_t>(pos)] = row;
            ++n_used_;
        }
    }
}

int32_t cell_map::add(int32_t pos) {
    int32_t row = n_rows();
    if (free_.empty()) {
        cells_.push_back(pos);
    } else {
        row = *free_.begin();
        free_.erase(free_.begin());
        cells_[static_cast<size_t>(row)] = pos;
    }
    if (pos >= static_cast<int32_t>(rows_.size())) {
        rows_.resize(static_cast<size_t>(pos) + 1, -1);
    }
    rows_[static_cast<size_t>(pos)] = row;
    ++n_used_;
    return row;
}

void cell_map::remove(int32_t pos) {
    const int32_t row = row_of(pos);
    if (row < 0) {
        return;
    }
    rows_[static_cast<size_t>(pos)] = -1;
    cells_[static_cast<size_t>(row)] = -1;
    free_.insert(row);
    --n_used_;
    while (!cells_.empty() && cells_.back() < 0) { // free rows at the end need not be remembered
        free_.erase(n_rows() - 1);
        cells_.pop_back();
    }
}

void cell_map::trim(int32_t n_tokens) {
    for (int32_t pos = static_cast<int32_t>(rows_.size()) - 1; pos >= n_tokens; --pos) {
        remove(pos);
    }
    if (static_cast<size_t>(n_tokens) < rows_.size()) {
        rows_.resize(static_cast<size_t>(n_tokens));
    }
}

std::vector<int32_t> cell_map::positions() const {
    std::vector<int32_t> out;
    out.reserve(static_cast<size_t>(n_used_));
    for (size_t pos = 0; pos < rows_.size(); ++pos) {
        if (rows_[pos] >= 0) {
            out.push_back(static_cast<int32_t>(pos));
        }
    }
    return out;
}

std::vector<int32_t> cell_map::used_rows() const {
    std::vector<int32_t> out;
    out.reserve(static_cast<size_t>(n_used_));
    for (int32_t row = 0; row < n_rows(); ++row) {
        if (pos_of(row) >= 0) {
            out.push_back(row);
        }
    }
    return out;
}

} // namespace lazygguf
