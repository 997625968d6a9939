/* Counting exponents in one pass over memory; built and called by kernels.py.
 *
 * A block of values is first turned into table rows by loops that compilers vectorise. Then the rows are
 * counted into several tables in turn, since one table would wait for its own last store wherever
 * neighbours fall into the same row, as exponents do. Tables come as zeros and leave with all counts in
 * their first lane.
 */
#include <stdint.h>
#include <string.h>

enum { FP32 = 0, FP16 = 1, BF16 = 2 };
enum { BLOCK = 2048, FIELDS = 256, CLASSES = 8, LANES = 8, CLASS_LANES = 2 };
enum { ONE = CLASSES - 1 }; /* a mantissa of 0; class i before it: i of the limits are reached */

static const uint32_t INF = 0x7F800000u;

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The FP32 bits of a value's magnitude. */
static inline uint32_t of_fp32(uint32_t x) { return x & 0x7FFFFFFFu; }

static inline uint32_t of_bf16(uint16_t x) { return (uint32_t)(x & 0x7FFFu) << 16; }

static inline uint32_t of_fp16(uint16_t x) {
    const uint32_t half = x & 0x7FFFu;
    /* A subnormal is a whole number of 2^-24: the product is exact, and an FP32 normal or zero. */
    const uint32_t small = bits_of((float)(int32_t)half * 0x1p-24f);
    const uint32_t rebias = half >= 0x7C00u ? (255u - 31u) << 23 : (127u - 15u) << 23;
    return half >= 0x0400u ? (half << 13) + rebias : small;
}

static inline uint32_t finite(uint32_t bits) { return bits < INF ? bits : 0; }

static inline uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* Zeros alone in row 0: FP32's own subnormals join the smallest normals, far below every bin. */
static inline uint8_t field_row(uint32_t bits) {
    const uint32_t field = bits >> 23;
    return (uint8_t)(field ? field : bits != 0);
}

static inline uint16_t class_row(uint32_t bits, const uint32_t *limits) {
    const uint32_t mantissa = bits & 0x7FFFFFu;
    const uint32_t reached = (mantissa >= limits[0]) + (mantissa >= limits[1]) + (mantissa >= limits[2]) +
                             (mantissa >= limits[3]);
    return (uint16_t)((bits >> 23) * CLASSES + (mantissa ? reached : ONE));
}

#define ROWS(name, type, magnitude)                                                                     \
    static uint32_t fields_##name(const type *x, int n, uint8_t *rows, uint32_t largest) {               \
        for (int i = 0; i < n; i++) {                                                                   \
            const uint32_t bits = magnitude(x[i]);                                                      \
            largest = larger(largest, finite(bits));                                                    \
            rows[i] = field_row(bits);                                                                  \
        }                                                                                               \
        return largest;                                                                                 \
    }                                                                                                   \
    static uint32_t classes_##name(const type *x, int n, const uint32_t *given, uint16_t *rows,          \
                                   uint32_t largest) {                                                  \
        const uint32_t limits[4] = {given[0], given[1], given[2], given[3]};                            \
        for (int i = 0; i < n; i++) {                                                                   \
            const uint32_t bits = magnitude(x[i]);                                                      \
            largest = larger(largest, finite(bits));                                                    \
            rows[i] = class_row(bits, limits);                                                          \
        }                                                                                               \
        return largest;                                                                                 \
    }

ROWS(fp32, uint32_t, of_fp32)
ROWS(fp16, uint16_t, of_fp16)
ROWS(bf16, uint16_t, of_bf16)

/* Count n values by FP32 exponent field into table[LANES][FIELDS], for n below 2^32: row 0 holds zeros,
 * row 255 Inf and NaN. Return the FP32 bits of the largest finite magnitude. */
uint32_t count_fields(const void *values, int64_t n, int form, uint32_t *table) {
    uint8_t rows[BLOCK];
    uint32_t largest = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int size = n - start < BLOCK ? (int)(n - start) : BLOCK;
        if (form == FP32)
            largest = fields_fp32((const uint32_t *)values + start, size, rows, largest);
        else if (form == FP16)
            largest = fields_fp16((const uint16_t *)values + start, size, rows, largest);
        else
            largest = fields_bf16((const uint16_t *)values + start, size, rows, largest);
        int i = 0;
        for (; i + LANES <= size; i += LANES)
            for (int lane = 0; lane < LANES; lane++)
                table[lane * FIELDS + rows[i + lane]]++;
        for (; i < size; i++)
            table[rows[i]]++;
    }
    for (int lane = 1; lane < LANES; lane++)
        for (int row = 0; row < FIELDS; row++)
            table[row] += table[lane * FIELDS + row];
    return largest;
}

/* Count n values by FP32 exponent field and class of mantissa into table[CLASS_LANES][FIELDS * CLASSES]:
 * class ONE of field 0 holds zeros, that of field 255 Inf. */
uint32_t count_classes(const void *values, int64_t n, int form, const uint32_t *limits, uint32_t *table) {
    uint16_t rows[BLOCK];
    uint32_t largest = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int size = n - start < BLOCK ? (int)(n - start) : BLOCK;
        if (form == FP32)
            largest = classes_fp32((const uint32_t *)values + start, size, limits, rows, largest);
        else if (form == FP16)
            largest = classes_fp16((const uint16_t *)values + start, size, limits, rows, largest);
        else
            largest = classes_bf16((const uint16_t *)values + start, size, limits, rows, largest);
        int i = 0;
        for (; i + CLASS_LANES <= size; i += CLASS_LANES)
            for (int lane = 0; lane < CLASS_LANES; lane++)
                table[lane * FIELDS * CLASSES + rows[i + lane]]++;
        for (; i < size; i++)
            table[rows[i]]++;
    }
    for (int row = 0; row < FIELDS * CLASSES; row++)
        table[row] += table[FIELDS * CLASSES + row];
    return largest;
}
