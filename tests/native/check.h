// check.h: test cases of the native core's pure parts, each named by a sentence.
//
//     CASE("ties go to the earlier position") { CHECK_EQ(chosen, positions({2, 5})); }
//
// A failed check prints both values and goes on; check.cpp runs one case by name or lists them all.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

struct test_case {
    const char * name;
    void (*run)();
};

std::vector<test_case> & test_cases();
bool add_case(const char * name, void (*run)());
void report_failure(const char * file, int line, const std::string & what);

// Lists with commas have to stand in parentheses where a macro reads them.
inline std::vector<int32_t> positions(std::vector<int32_t> list) { return list; }

template <typename T> std::string shown(const T & value) {
    if constexpr (std::is_arithmetic_v<T>) {
        return std::to_string(value);
    } else if constexpr (std::is_convertible_v<T, std::string>) {
        return '"' + std::string(value) + '"';
    } else {
        std::string text;
        for (const auto & element : value) {
            text += (text.empty() ? "" : ", ") + shown(element);
        }
        return "{" + text + "}";
    }
}

template <typename A, typename B>
void check_equal(const A & got, const B & expected, const char * what, const char * file, int line) {
    if (!(got == expected)) {
        report_failure(file, line, std::string(what) + " is " + shown(got) + ", expected " + shown(expected));
    }
}

#define CASE_NAMED(sentence, function)                                                                                 \
    static void function();                                                                                            \
    static const bool function##_added = add_case(sentence, function);                                                 \
    static void function()
#define CASE_AT(sentence, line) CASE_NAMED(sentence, case_##line)
#define CASE_HERE(sentence, line) CASE_AT(sentence, line)
#define CASE(sentence) CASE_HERE(sentence, __LINE__)
#define CHECK_EQ(got, expected) check_equal(got, expected, #got, __FILE__, __LINE__)
