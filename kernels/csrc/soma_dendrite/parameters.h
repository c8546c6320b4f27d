// The parameters of the pair, in the order of Inputs in soma_dendrite/contract.py: how many rows each has per neuron,
// and its value where a call has none. Every list of parameters in this language is made from this table.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define SD_CONSTANT __device__ constexpr
#else
#define SD_CONSTANT constexpr
#endif

#define SD_SOMA_PARAMETERS(ROW) \
  ROW(theta, coefficients(), 0) \
  ROW(threshold, 1, 0)
#define SD_PARAMETERS(ROW)   \
  ROW(alpha, branches, 0)    \
  ROW(gain, branches, 1)     \
  ROW(offset, branches, 0)   \
  ROW(strength, branches, 0) \
  ROW(direct, 1, 0)          \
  SD_SOMA_PARAMETERS(ROW)

#define SD_NUMBER(name, rows, absent) PARAMETER_##name,
enum Parameter { SD_PARAMETERS(SD_NUMBER) PARAMETERS };

// Where a parameter's rows lie among those of all: parameters, the sums of their gradients, partial sums.
struct ParameterRows {
  int branches, degree;
  SD_CONSTANT int coefficients() const { return degree + 1; }
#define SD_COUNT(name, rows, absent) \
  if (parameter == PARAMETER_##name) return rows;
  SD_CONSTANT int count(int parameter) const {
    SD_PARAMETERS(SD_COUNT)
    return 0;
  }
  SD_CONSTANT int first(int parameter) const {
    int row = 0;
    for (int before = 0; before < parameter; ++before) row += count(before);
    return row;
  }
  SD_CONSTANT int count() const { return first(PARAMETERS); }
#define SD_FIRST(name, rows, absent) \
  SD_CONSTANT int name(int i = 0) const { return first(PARAMETER_##name) + i; }
  SD_PARAMETERS(SD_FIRST)
};

#define SD_ABSENT(name, rows, absent) \
  if (parameter == PARAMETER_##name) return absent;
SD_CONSTANT int value_where_absent(int parameter) {
  SD_PARAMETERS(SD_ABSENT)
  return 0;
}
