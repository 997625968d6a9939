/* Counting exponents in one pass over memory; built by kernels.py, called by counter.py.
 *
 * A block of values is first turned into table rows by loops that compilers vectorise. Then the rows are
 * counted into several tables in turn, since one table would wait for its own last store wherever
 * neighbours fall into the same row, as exponents do.
 *
 * Threads of its own take jobs from a queue: none of them needs Python's lock, which would cost more than
 * the counting.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
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

/* One tensor, or a part of one; all numbers of 8 bytes, as counter.py writes them. */
typedef struct {
    const void *values;
    int64_t n, form;
    const uint32_t *limits; /* null: count fields alone */
    uint32_t *table;        /* zeros */
    int64_t largest, inf, done;
} job;

/* By FP32 exponent field into table[FIELDS]: row 0 holds zeros, row 255 Inf and NaN. */
static uint32_t count_fields(const job *given, uint32_t *restrict table) {
    block now;
    uint8_t rows[BLOCK];
    uint32_t lanes[LANES][FIELDS] = {{0}};
    uint32_t largest = 0;
    for (int64_t start = 0; start < given->n; start += BLOCK) {
        const int size = given->n - start < BLOCK ? (int)(given->n - start) : BLOCK;
        const uint32_t *bits = fp32_bits(given->values, start, size, (int)given->form, &now);
        largest = largest_finite(bits, size, largest);
        field_rows(bits, size, rows);
        int i = 0;
        for (; i + LANES <= size; i += LANES)
            for (int lane = 0; lane < LANES; lane++)
                lanes[lane][rows[i + lane]]++;
        for (; i < size; i++)
            lanes[0][rows[i]]++;
    }
    for (int lane = 0; lane < LANES; lane++)
        for (int row = 0; row < FIELDS; row++)
            table[row] += lanes[lane][row];
    return largest;
}

/* By FP32 exponent field and class of mantissa into table[FIELDS * CLASSES]: class ONE of field 0 holds
 * zeros, that of field 255 Inf. */
static uint32_t count_classes(const job *given, uint32_t *restrict table) {
    block now;
    uint16_t rows[BLOCK];
    uint32_t lanes[CLASS_LANES][FIELDS * CLASSES] = {{0}};
    uint32_t largest = 0;
    for (int64_t start = 0; start < given->n; start += BLOCK) {
        const int size = given->n - start < BLOCK ? (int)(given->n - start) : BLOCK;
        const uint32_t *bits = fp32_bits(given->values, start, size, (int)given->form, &now);
        largest = largest_finite(bits, size, largest);
        class_rows(bits, size, given->limits, rows);
        int i = 0;
        for (; i + CLASS_LANES <= size; i += CLASS_LANES)
            for (int lane = 0; lane < CLASS_LANES; lane++)
                lanes[lane][rows[i + lane]]++;
        for (; i < size; i++)
            lanes[0][rows[i]]++;
    }
    for (int lane = 0; lane < CLASS_LANES; lane++)
        for (int row = 0; row < FIELDS * CLASSES; row++)
            table[row] += lanes[lane][row];
    return largest;
}

static int64_t count_inf(const job *given) {
    block now;
    int64_t found = 0;
    for (int64_t start = 0; start < given->n; start += BLOCK) {
        const int size = given->n - start < BLOCK ? (int)(given->n - start) : BLOCK;
        const uint32_t *bits = fp32_bits(given->values, start, size, (int)given->form, &now);
        for (int i = 0; i < size; i++)
            found += (bits[i] & MAGNITUDE) == INF;
    }
    return found;
}

static void count(job *given) {
    if (given->limits) {
        given->largest = count_classes(given, given->table);
        given->inf = given->table[(FIELDS - 1) * CLASSES + ONE];
    } else {
        given->largest = count_fields(given, given->table);
        given->inf = given->table[FIELDS - 1] ? count_inf(given) : 0;
    }
    __atomic_store_n(&given->done, 1, __ATOMIC_RELEASE);
}

enum { QUEUE = 4096, MOST_WORKERS = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER, idle = PTHREAD_COND_INITIALIZER;
static job *queue[QUEUE];
static int first, waiting, busy, workers;

/* Count the first job of the queue. Called and left with the lock held. */
static void take_one(void) {
    job *given = queue[first];
    first = (first + 1) % QUEUE;
    waiting--;
    busy++;
    pthread_mutex_unlock(&lock);
    count(given);
    pthread_mutex_lock(&lock);
    if (!--busy && !waiting)
        pthread_cond_broadcast(&idle);
}

static void *work(void *unused) {
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!waiting)
            pthread_cond_wait(&more, &lock);
        take_one();
    }
    return unused;
}

/* Start a thread that no signal interrupts: those are for Python's own. */
static int start_worker(void) {
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&thread, 0, work, 0);
    pthread_sigmask(SIG_SETMASK, &before, 0);
    if (!failed)
        pthread_detach(thread);
    return !failed;
}

/* Have jobs counted by so many threads, beside the caller. Where there are none, `settle` counts. */
void count_beside(job *jobs, int64_t n, int threads) {
    pthread_mutex_lock(&lock);
    while (workers < threads && workers < MOST_WORKERS && start_worker())
        workers++;
    for (int64_t i = 0; i < n; i++) {
        while (waiting == QUEUE)
            take_one();
        queue[(first + waiting++) % QUEUE] = jobs + i;
        pthread_cond_signal(&more);
    }
    pthread_mutex_unlock(&lock);
}

/* Return when all jobs are counted; the caller helps. */
void settle(void) {
    pthread_mutex_lock(&lock);
    while (busy || waiting) {
        if (waiting)
            take_one();
        else
            pthread_cond_wait(&idle, &lock);
    }
    pthread_mutex_unlock(&lock);
}

/* In a forked process: none of the threads came along, and nobody there waits for what is queued. */
void forget(void) {
    static const pthread_mutex_t fresh_lock = PTHREAD_MUTEX_INITIALIZER;
    static const pthread_cond_t fresh_cond = PTHREAD_COND_INITIALIZER;
    lock = fresh_lock;
    more = idle = fresh_cond;
    first = waiting = busy = workers = 0;
}
