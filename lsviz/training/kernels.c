/* Counting exponents in one pass over memory; built and called by kernels.py.
 *
 * A block of values is first turned into table rows by loops that compilers vectorise. Then the rows are
 * counted into several tables in turn, since one table would wait for its own last store wherever
 * neighbours fall into the same row, as exponents do. Tables come as zeros and leave with all counts in
 * their first lane.
 */
#include <stdint.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

enum { FP32 = 0, FP16 = 1, BF16 = 2 };
enum { BLOCK = 512, FIELDS = 256, CLASSES = 8, LANES = 8, CLASS_LANES = 2 };
enum { ONE = CLASSES - 1 }; /* a mantissa of 0; class i before it: i of the limits are reached */

static const uint32_t MAGNITUDE = 0x7FFFFFFFu, INF = 0x7F800000u;

/* A block of values, as FP32 and as its bits. */
typedef union {
    float values[BLOCK];
    uint32_t bits[BLOCK];
} block;

/* One plain loop for one thing: that is what compilers turn into vector instructions. */
static void widen_bf16(const uint16_t *restrict x, int n, block *restrict out) {
    for (int i = 0; i < n; i++)
        out->bits[i] = (uint32_t)x[i] << 16;
}

static void widen_fp16(const uint16_t *restrict x, int n, block *restrict out) {
    int done = 0;
#ifdef __F16C__ /* which takes no notice of a mode that flushes subnormals */
    for (; done + 8 <= n; done += 8)
        _mm256_storeu_ps(out->values + done, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + done))));
#endif
    /* A subnormal is a whole number of 2^-24: the product is exact, and an FP32 normal or zero. */
    for (int i = done; i < n; i++)
        out->values[i] = (float)(int32_t)(x[i] & 0x7FFF) * 0x1p-24f;
    for (int i = done; i < n; i++) {
        const uint32_t half = x[i] & 0x7FFFu;
        const uint32_t rebias = half >= 0x7C00u ? (255u - 31u) << 23 : (127u - 15u) << 23;
        const uint32_t normal = (half << 13) + rebias;
        out->bits[i] = half >= 0x0400u ? normal : out->bits[i];
    }
}

/* The FP32 bits of n values: where they lie, or widened into a block. */
static const uint32_t *fp32_bits(const void *values, int64_t start, int n, int form, block *out) {
    if (form == FP32)
        return (const uint32_t *)values + start;
    if (form == FP16)
        widen_fp16((const uint16_t *)values + start, n, out);
    else
        widen_bf16((const uint16_t *)values + start, n, out);
    return out->bits;
}

static uint32_t largest_finite(const uint32_t *restrict bits, int n, uint32_t largest) {
    for (int i = 0; i < n; i++) {
        const uint32_t magnitude = bits[i] & MAGNITUDE;
        const uint32_t finite = magnitude & (0u - (uint32_t)(magnitude < INF));
        largest = largest > finite ? largest : finite;
    }
    return largest;
}

/* Zeros alone in row 0: FP32's own subnormals join the smallest normals, far below every bin. */
static void field_rows(const uint32_t *restrict bits, int n, uint8_t *restrict rows) {
    for (int i = 0; i < n; i++) {
        const uint32_t magnitude = bits[i] & MAGNITUDE;
        rows[i] = (uint8_t)((magnitude >> 23) + (magnitude - 1u < 0x7FFFFFu));
    }
}

static void class_rows(const uint32_t *restrict bits, int n, const uint32_t *given,
                       uint16_t *restrict rows) {
    const uint32_t first = given[0], second = given[1], third = given[2], fourth = given[3];
    for (int i = 0; i < n; i++) {
        const uint32_t field = (bits[i] & MAGNITUDE) >> 23, mantissa = bits[i] & 0x7FFFFFu;
        const uint32_t reached = (uint32_t)(mantissa >= first) + (mantissa >= second) +
                                 (mantissa >= third) + (mantissa >= fourth);
        rows[i] = (uint16_t)(field * CLASSES + (mantissa == 0 ? ONE : reached));
    }
}

/* Count n values by FP32 exponent field into table[LANES][FIELDS], for n below 2^32: row 0 holds zeros,
 * row 255 Inf and NaN. Return the FP32 bits of the largest finite magnitude. */
uint32_t count_fields(const void *values, int64_t n, int form, uint32_t *restrict table) {
    block now;
    uint8_t rows[BLOCK];
    uint32_t largest = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int size = n - start < BLOCK ? (int)(n - start) : BLOCK;
        const uint32_t *bits = fp32_bits(values, start, size, form, &now);
        largest = largest_finite(bits, size, largest);
        field_rows(bits, size, rows);
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
uint32_t count_classes(const void *values, int64_t n, int form, const uint32_t *limits,
                       uint32_t *restrict table) {
    block now;
    uint16_t rows[BLOCK];
    uint32_t largest = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int size = n - start < BLOCK ? (int)(n - start) : BLOCK;
        const uint32_t *bits = fp32_bits(values, start, size, form, &now);
        largest = largest_finite(bits, size, largest);
        class_rows(bits, size, limits, rows);
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
