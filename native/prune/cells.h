// cells.h: the cell map of one segment, which row of its K/V tensors holds which position.
//
// Owns bookkeeping only, no tensors. Invariant: row_of and pos_of are inverse to each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

namespace lazygguf {

class cell_map {
  public:
    cell_map() = default;
    // From the position of each row, -1 where it is free. Each position stands once, and the last row is not free.
    explicit cell_map(std::vector<int32_t> cells);

    bool has(int32_t pos) const { return row_of(pos) >= 0; }
    // -1: the position has no row.
    int32_t row_of(int32_t pos) const {
        return pos < static_cast<int32_t>(rows_.size()) ? rows_[static_cast<size_t>(pos)] : -1;
    }
    // -1: the row is free.
    int32_t pos_of(int32_t row) const { return cells_[static_cast<size_t>(row)]; }
    // One past the highest row ever used since the last clear: rows at or past it hold nothing.
    int32_t n_rows() const { return static_cast<int32_t>(cells_.size()); }
    int32_t n_used() const { return n_used_; }

    // Gives the position the lowest free row and returns it. The position must have none.
    int32_t add(int32_t pos);
    void remove(int32_t pos);
    // Forgets the positions >= n_tokens.
    void trim(int32_t n_tokens);
    // Positions with a row, ascending.
    std::vector<int32_t> positions() const;
    // Rows that are not free, ascending.
    std::vector<int32_t> used_rows() const;
    // By row, its position, -1 where it is free.
    const std::vector<int32_t> & by_row() const { return cells_; }

  private:
    std::vector<int32_t> cells_; // row -> position
    std::vector<int32_t> rows_;  // position -> row
    std::set<int32_t> free_;     // free rows below n_rows()
    int32_t n_used_ = 0;
};

} // namespace lazygguf
