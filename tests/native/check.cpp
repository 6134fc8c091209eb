// check.cpp: `checks --list` prints every case's name; `checks NAME` runs that case, and fails with what it found.

#include "check.h"

#include <cstdio>

namespace {

int n_failures = 0;

} // namespace

std::vector<test_case> & test_cases() {
    static std::vector<test_case> all;
    return all;
}

bool add_case(const char * name, void (*run)()) {
    test_cases().push_back({name, run});
    return true;
}

void report_failure(const char * file, int line, const std::string & what) {
    std::printf("%s:%d: %s\n", file, line, what.c_str());
    ++n_failures;
}

int main(int argc, char ** argv) {
    const std::string wanted = argc == 2 ? argv[1] : "--list";
    bool is_found = false;
    for (const test_case & c : test_cases()) {
        if (wanted == "--list") {
            std::printf("%s\n", c.name);
        } else if (wanted == c.name) {
            c.run();
            is_found = true;
        }
    }
    if (wanted != "--list" && !is_found) {
        report_failure(argv[0], 0, "no case is named '" + wanted + "'");
    }
    return n_failures == 0 ? 0 : 1;
}
