/* Featherweight package decoder. The format is in docs/package-format.md; names are those of the Python encoder.
 * All arithmetic is on integers of known width (scaled floats excepted: one exact product, rounded once). */
#include "featherweight_decoder.h"

#include <string.h>

enum {
    CONTEXTS = 6,
    NODES = 32,
    PLACES = 1024,
    SIGNS = CONTEXTS * NODES * PLACES,
    RESTS = SIGNS + CONTEXTS * PLACES,
    ESCAPES = RESTS + 64,
    STEPS = ESCAPES + 32,
    TIES = STEPS + 256,
    LEVEL_STATES = TIES + 16,
    LEVEL_MIXTURES = NODES + 1, /* for each number of contexts */
    FEWEST_CONTEXTS = 3,
    KEPT = 30,
    ESCAPE = 192,
    LAST = 15,

    HASHED = 1 << 18,
    FIRST = 256,
    SECOND = FIRST + 65536,
    THIRD = SECOND + HASHED,
    REFERENCE = THIRD + HASHED,
    MATCH = REFERENCE + 8 * 65536,
    PLAIN_STATES = MATCH + 64,
    LONGEST = 31,
    PLAIN_MIXTURES = LONGEST + 1,
    HASH_BITS = 14,

    LIMIT = 255,
    LEARNING = 6,
    WEIGHT_ONE = 1 << 16,
    WEIGHT_BOUND = 1 << 20,

    MOST_VALUES = 4096,
    MOST_COLUMNS = 1 << 24,
    MOST_SECTIONS = 1 << 16,
    MOST_PIECES = 1 << 16,
    MOST_DESCRIPTION = 1 << 20,
    LARGEST = 1 << 28
};

/* Whether a fuzzer runs the decoder: it would never get past a checksum, and forgetting what was
 * learnt would be most of an execution. */
#ifdef FW_FUZZING
enum { TRUSTING = 1 };
#else
enum { TRUSTING = 0 };
#endif

#define MOST_BYTES 0x7fffffffu
#define FRESH 0x80000000u

enum { STORED, BYTES, PLANES, LEVELS };
enum { INT8, UINT8, INT16, UINT16, INT32, WORD16, WORD32, FLOAT32, ELEMENTS };

static const uint8_t ELEMENT_BYTES[ELEMENTS] = {1, 1, 2, 2, 4, 2, 4, 4};

/* ------------------------------------------------------------------------------------------------ what is learnt */

typedef struct {
    uint32_t *states;
    int32_t *weights; /* CONTEXTS to a mixture */
} model;

/* A context's decisions of one tree fill 64 bytes, a cache's line: the levels' states come first, at a multiple of 64. */
typedef struct {
    uint32_t level_states[LEVEL_STATES];
    int16_t stretch[4096];
    uint16_t squash[4096];
    int32_t rates[1024];
    int32_t starts[16];
    uint8_t bucket[ESCAPE + 1];
    uint8_t scale[16384];
    int32_t level_weights[(CONTEXTS + 1) * LEVEL_MIXTURES * CONTEXTS];
    uint32_t plain_states[PLAIN_STATES];
    int32_t plain_weights[PLAIN_MIXTURES * CONTEXTS];
    uint32_t matches[1 << HASH_BITS]; /* place plus one, 0 is none */
    uint32_t words[MOST_VALUES];
} knowledge;

typedef struct {
    const uint8_t *stream;
    size_t count, next;
    uint32_t low, high, window;
    knowledge *known;
} coder;

/* Shift right, rounding towards minus infinity, for negative numbers too: C99 leaves that to the compiler. */
#if -1 >> 1 == -1
static int64_t down(int64_t value, int bits) { return value >> bits; }
#else
static int64_t down(int64_t value, int bits) { return value < 0 ? ~(~value >> bits) : value >> bits; }
#endif

static int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t magnitude(int64_t value) { return value < 0 ? -value : value; }

static void make_squash(knowledge *known) {
    uint64_t power = (uint64_t)1 << 32;
    int step, p, reached = 0;
    for (step = 0; step <= 2048; step++) {
        int32_t low = (int32_t)((65536 * power) / (((uint64_t)1 << 32) + power));
        if (step > 0) known->squash[2048 - step] = (uint16_t)low;
        if (step < 2048) known->squash[2048 + step] = (uint16_t)(65536 - low);
        power = (power * 4278222812u) >> 32;
    }
    for (p = 0; p < 4096; p++) {
        while (reached < 4095 && known->squash[reached] < p * 16 + 8) reached++;
        known->stretch[p] = (int16_t)(reached - 2048);
    }
}

static void make_scales(knowledge *known) {
    int value;
    for (value = 0; value < 16384; value++) {
        uint64_t shifted = (uint64_t)value + 4;
        int octave = 0, scale;
        while (shifted >> (octave + 3)) octave++;
        scale = 2 * octave + (shifted * shifted >= (uint64_t)1 << (2 * octave + 5));
        known->scale[value] = (uint8_t)(scale < 23 ? scale : 23);
    }
}

static void make_tables(knowledge *known) {
    int k, bucket = 0;
    make_squash(known);
    make_scales(known);
    for (k = 0; k < 1024; k++) known->rates[k] = 131072 / (2 * k + 3);
    for (k = 0; k < 16; k++) known->starts[k] = k < 4 ? k : (k & 1 ? 3 << (k / 2 - 1) : 1 << (k / 2));
    for (k = 0; k <= ESCAPE; k++) {
        while (bucket < LAST && known->starts[bucket + 1] <= k) bucket++;
        known->bucket[k] = (uint8_t)bucket;
    }
}

static void forget_all(knowledge *known) {
    int k;
    make_tables(known);
    for (k = 0; k < LEVEL_STATES; k++) known->level_states[k] = FRESH;
    for (k = 0; k < PLAIN_STATES; k++) known->plain_states[k] = FRESH;
    for (k = 0; k < (CONTEXTS + 1) * LEVEL_MIXTURES * CONTEXTS; k++) {
        int count = k / (LEVEL_MIXTURES * CONTEXTS);
        known->level_weights[k] = WEIGHT_ONE / (count > 0 ? count : 1);
    }
    for (k = 0; k < PLAIN_MIXTURES * CONTEXTS; k++) known->plain_weights[k] = WEIGHT_ONE / CONTEXTS;
    memset(known->matches, 0, sizeof known->matches);
}

/* ---------------------------------------------------------------------------------------------------- range coder */

static uint32_t next_byte(coder *c) { return c->next < c->count ? c->stream[c->next++] : 0; }

static void start_coder(coder *c, const uint8_t *stream, size_t count, knowledge *known) {
    int k;
    c->stream = stream, c->count = count, c->next = 0;
    c->low = 0, c->high = 0xffffffffu, c->window = 0;
    c->known = known;
    for (k = 0; k < 4; k++) c->window = c->window << 8 | next_byte(c);
}

/* One bit whose probability of being one is chance / 65536. Which it is can't be foreseen, so no branch depends on it. */
static int read_bit(coder *c, uint32_t chance) {
    uint32_t low = c->low, high = c->high, width = high - low;
    uint32_t middle = low + (uint32_t)((uint64_t)width * chance >> 16);
    uint32_t one = 0u - (uint32_t)(c->window <= middle);
    high = (middle & one) | (high & ~one);
    low = (low & one) | ((middle + 1) & ~one);
    while ((low ^ high) < 1u << 24) {
        low <<= 8;
        high = high << 8 | 0xff;
        c->window = c->window << 8 | next_byte(c);
    }
    c->low = low, c->high = high;
    return (int)(one & 1);
}

static uint32_t read_plain(coder *c, int bits) {
    uint32_t made = 0;
    while (bits-- > 0) made = made << 1 | (uint32_t)read_bit(c, 1u << 15);
    return made;
}

static uint32_t learnt(const knowledge *known, uint32_t state, int32_t goal) {
    int32_t chance = (int32_t)(state >> 10);
    uint32_t count = state & 1023;
    chance += (int32_t)down((int64_t)(goal - chance) * known->rates[count], 16);
    return (uint32_t)chance << 10 | (count + (count < LIMIT));
}

static int read_alone(coder *c, uint32_t *state) {
    uint32_t chance = *state >> 16;
    int bit = read_bit(c, chance < 32 ? 32 : chance > 65504 ? 65504 : chance);
    *state = learnt(c->known, *state, (bit << 22) - bit);
    return bit;
}

/* One bit by the mixture `weights` of the states at `places`; a fresh state starts from the first one's. */
static inline int mix(coder *c, uint32_t *states, const uint32_t *places, int32_t *weights, int count) {
    const knowledge *known = c->known;
    uint32_t held[CONTEXTS];
    int32_t logits[CONTEXTS], chance, error, goal;
    int64_t total = 0;
    int bit, k;
    for (k = 0; k < count; k++) {
        held[k] = states[places[k]];
        if ((held[k] & 1023) == 0 && k > 0) held[k] = (held[0] & ~(uint32_t)1023) | 1;
        logits[k] = known->stretch[held[k] >> 20];
        total += (int64_t)weights[k] * logits[k];
    }
    total = down(total, 16);
    chance = known->squash[(total < -2048 ? -2048 : total > 2047 ? 2047 : total) + 2048];
    bit = read_bit(c, (uint32_t)chance);
    error = ((bit << 16) - chance) * LEARNING;
    goal = (bit << 22) - bit;
    for (k = 0; k < count; k++) {
        int32_t moved = weights[k] + (int32_t)down(logits[k] * error + 131072, 18);
        weights[k] = moved < -WEIGHT_BOUND ? -WEIGHT_BOUND : moved > WEIGHT_BOUND ? WEIGHT_BOUND : moved;
        states[places[k]] = learnt(known, held[k], goal);
    }
    return bit;
}

/* The same; few contexts are the common case, and the compiler unrolls what it knows the number of. */
static int read_mixed(coder *c, uint32_t *states, const uint32_t *places, int32_t *weights, int count) {
    return count == FEWEST_CONTEXTS ? mix(c, states, places, weights, FEWEST_CONTEXTS)
                                    : mix(c, states, places, weights, count);
}

/* --------------------------------------------------------------------------------------------------------- bytes */

typedef struct {
    size_t start, count, stride;
    uint32_t element;
    const uint8_t *reference; /* every `stride`-th byte counts; NULL: none */
    size_t back;              /* how far before a byte its reference lies in the output; 0: none */
    int ahead;                /* its reference is the byte after it */
} walk;

static void store(coder *c, uint8_t *out, size_t count, size_t stride) {
    size_t k;
    for (k = 0; k < count; k++) out[k * stride] = (uint8_t)read_plain(c, 8);
}

static uint8_t read_byte(coder *c, uint32_t guess, uint32_t length, const uint32_t *rows) {
    knowledge *known = c->known;
    uint32_t places[CONTEXTS], node = 1;
    int shift;
    for (shift = 7; shift >= 0; shift--) {
        uint32_t follows = length > 0 && (guess | 256) >> (shift + 1) == node ? length : 0;
        places[0] = node;
        places[1] = FIRST + rows[0] + node;
        places[2] = SECOND + ((rows[1] + node * 40503u) & (HASHED - 1));
        places[3] = THIRD + ((rows[2] + node * 40503u) & (HASHED - 1));
        places[4] = REFERENCE + rows[3] + node;
        places[5] = MATCH + (follows ? follows * 2 + ((guess >> shift) & 1) : 0);
        node = node * 2 +
               (uint32_t)read_mixed(c, known->plain_states, places, known->plain_weights + follows * CONTEXTS, CONTEXTS);
    }
    return (uint8_t)node;
}

/* The match after the byte at `place`: it goes on, or is looked up anew. */
static void follow(knowledge *known, const uint8_t *out, size_t place, size_t *match, size_t *run) {
    uint32_t last, slot;
    if (*run > 0 && out[*match] == out[place])
        ++*match, ++*run;
    else
        *run = 0;
    if (place < 3) return;
    last = out[place] | (uint32_t)out[place - 1] << 8 | (uint32_t)out[place - 2] << 16 | (uint32_t)out[place - 3] << 24;
    slot = (last * 2654435761u) >> 18;
    if (*run == 0 && known->matches[slot] > 0) *match = known->matches[slot], *run = 1;
    known->matches[slot] = (uint32_t)place + 1;
}

static void read_bytes(coder *c, uint8_t *out, const walk *w) {
    size_t match = 0, run = 0, k;
    uint32_t rows[4];
    for (k = 0; k < w->count; k++) {
        size_t place = w->start + k * w->stride;
        uint32_t one = k > 0 ? out[place - w->stride] : 0;
        uint32_t two = k > 1 ? out[place - 2 * w->stride] : 0;
        uint32_t three = k > 2 ? out[place - 3 * w->stride] : 0;
        uint32_t held = 0, phase = w->stride == 1 ? (uint32_t)(k % w->element) : w->element - 1;
        if (w->reference)
            held = w->reference[k * w->stride];
        else if (w->ahead)
            held = out[place + 1];
        else if (w->back > 0 && k >= w->back)
            held = out[place - w->back];
        rows[0] = one * 256;
        rows[1] = (one + two * 256) * 9973u;
        rows[2] = (one + two * 256 + three * 65536) * 51803u;
        rows[3] = (phase * 256 + held) * 256;
        if (w->reference) { /* an earlier version is itself the match */
            out[place] = read_byte(c, held, (uint32_t)lesser((int64_t)run + 1, LONGEST), rows);
            run = out[place] == held ? run + 1 : 0;
            continue;
        }
        out[place] = read_byte(c, run > 0 ? out[match] : 0, (uint32_t)lesser((int64_t)run, LONGEST), rows);
        if (w->stride == 1) follow(c->known, out, place, &match, &run);
    }
}

/* -------------------------------------------------------------------------------------------------------- levels */

typedef struct {
    size_t length, rows, columns; /* of the matrix in memory */
    size_t coded_rows, coded_columns, period;
    int element, contexts, across, balanced, based;
    int64_t offset, top;
    size_t values, base;
} matrix;

/* Room for a matrix, in int32 numbers: columns each for two rows and the column scales, and the two inner scales. */
typedef struct {
    int32_t *above, *here, *column, *inside, *outside;
    size_t a, b; /* of the level at hand: its place in the period, and which period */
    int64_t row, all;
} scales;

/* The contexts of one level: places for magnitude and sign. */
typedef struct {
    uint32_t size[CONTEXTS], sign[CONTEXTS];
    int count;        /* how many contexts are mixed */
    int32_t *weights; /* of the mixtures of so many */
} context;

static uint32_t scale_of(const knowledge *known, int64_t mean) { return known->scale[lesser(mean >> 4, 16383)]; }

static uint32_t bucket_of(const knowledge *known, int64_t level) { return known->bucket[lesser(magnitude(level), ESCAPE)]; }

static uint32_t side_of(int64_t level) { return level > 0 ? 1 : level < 0 ? 2 : 0; }

static uint32_t capped(uint32_t value, uint32_t most) { return value < most ? value : most; }

static void gather(const knowledge *known, const matrix *m, const scales *s, size_t i, size_t j, context *x) {
    size_t a = s->a, b = s->b;
    int64_t before = j > 0 ? s->here[j - 1] : 0, second = j > 1 ? s->here[j - 2] : before;
    int64_t back = j >= m->period ? s->here[j - m->period] : before, above = i > 0 ? s->above[j] : before;
    int64_t mean = i > 0 ? s->column[j] : (s->inside[a] + (a > 0 ? s->outside[b] : s->all)) >> 1;
    uint32_t column = scale_of(known, mean), row = scale_of(known, s->row), side = side_of(before);
    uint32_t above_side = i > 0 ? side_of(above) : 0, back_side = j >= m->period ? side_of(back) : 0, near, far, up;
    x->size[0] = x->sign[0] = 0;
    x->size[1] = column * 24 + row;
    x->size[2] = scale_of(known, s->inside[a]) * 24 + scale_of(known, s->outside[b]);
    x->sign[1] = side * 9 + above_side * 3 + back_side;
    if (x->count == FEWEST_CONTEXTS) return;
    near = capped(bucket_of(known, before), 11), far = capped(bucket_of(known, back), 11);
    up = capped(bucket_of(known, above), 11);
    x->size[3] = capped(near, 7) * 64 + capped(bucket_of(known, second), 7) * 8 + capped(far, 7);
    x->size[4] = near * 12 + up;
    x->size[5] = far * 12 + (column >> 1);
    x->sign[2] = side * 24 + row;
    x->sign[3] = side * 12 + near;
    x->sign[4] = back_side * 12 + far;
    x->sign[5] = above_side * 12 + up;
}

static void gather_base(context *x, int64_t held) {
    uint32_t known = (uint32_t)lesser(magnitude(held), 63) * 2 + (held < 0);
    x->size[3] = 512 + known;
    x->sign[3] = 64 + known;
}

static uint32_t read_bucket(coder *c, const context *x, int balanced) {
    knowledge *known = c->known;
    uint32_t places[CONTEXTS], node = 1, reached = 0;
    for (;;) {
        uint32_t slot = balanced ? 16 + node - 1 : reached, k;
        int bit;
        for (k = 0; k < (uint32_t)x->count; k++) places[k] = (k * PLACES + x->size[k]) * NODES + slot;
        bit = read_mixed(c, known->level_states, places, x->weights + slot * CONTEXTS, x->count);
        node = node * 2 + (uint32_t)bit;
        if (balanced) {
            if (++reached == 4) return node - 16;
        } else {
            reached += (uint32_t)bit;
            if (!bit || reached == LAST) return reached;
        }
    }
}

static int read_sign(coder *c, const context *x) {
    uint32_t places[CONTEXTS], k;
    if (x->count == FEWEST_CONTEXTS) return read_alone(c, c->known->level_states + SIGNS + x->sign[1]);
    for (k = 0; k < (uint32_t)x->count; k++) places[k] = SIGNS + k * PLACES + x->sign[k];
    return read_mixed(c, c->known->level_states, places, x->weights + NODES * CONTEXTS, x->count);
}

static int64_t read_rest(coder *c, uint32_t bucket) {
    uint32_t *states = c->known->level_states + RESTS + bucket * 4, prefix = 1, made = 0;
    int width = (int)(bucket - 2) >> 1, left = width > 2 ? width - 2 : 0, shift;
    for (shift = width - 1; shift >= left; shift--) {
        uint32_t bit = (uint32_t)read_alone(c, states + prefix);
        prefix = prefix * 2 + bit;
        made = made * 2 + bit;
    }
    return made << left | read_plain(c, left);
}

static int64_t read_beyond(coder *c) {
    int order = 0;
    while (order < 22 && read_alone(c, c->known->level_states + ESCAPES + order)) order++;
    return ((int64_t)64 << order) - 64 + read_plain(c, 6 + order);
}

static int64_t read_level(coder *c, const context *x, int balanced) {
    uint32_t bucket = read_bucket(c, x, balanced);
    int64_t size;
    int negative;
    if (bucket == 0) return 0;
    negative = read_sign(c, x);
    size = c->known->starts[bucket];
    if (bucket == LAST)
        size += read_beyond(c);
    else if (bucket >= 4)
        size += read_rest(c, bucket);
    return negative ? -size : size;
}

static void observe(const knowledge *known, const matrix *m, scales *s, size_t i, size_t j, int64_t level) {
    int64_t size = lesser(magnitude(level), 1 << 14) << 8;
    int32_t *inside = &s->inside[s->a], *outside = &s->outside[s->b];
    if (i == 0)
        s->column[j] = (int32_t)size;
    else
        s->column[j] += (int32_t)down((size - s->column[j]) * known->rates[i < 14 ? i : 14], 16);
    s->row += down((size - s->row) * known->rates[j + 2 < 22 ? j + 2 : 22], 16);
    *inside += (int32_t)down(size - *inside, 5);
    *outside += (int32_t)down(size - *outside, 5);
    s->all += down(size - s->all, 6);
    if (++s->a == m->period) s->a = 0, s->b++;
}

static uint32_t read_step(coder *c) {
    uint32_t node = 1;
    int k;
    for (k = 0; k < 8; k++) node = node * 2 + (uint32_t)read_alone(c, c->known->level_states + STEPS + node);
    return node - 255;
}

/* A position on its row's own grid as a level, one off where rounding was close. Steps and tops are at most 256. */
static int64_t on_grid(coder *c, int64_t position, uint32_t step, uint32_t top) {
    uint32_t *ties = c->known->level_states + TIES, scaled, close;
    int64_t away;
    if (step == top) return position;
    scaled = 2 * (uint32_t)lesser(magnitude(position), step) * top + step;
    away = scaled / (2 * step);
    close = scaled % (2 * step) * 4 / step;
    if (position < 0) away = -away;
    if ((close != 0 && close != 7) || !read_alone(c, ties + close)) return away;
    return read_alone(c, ties + 8 + close) ? away - 1 : away + 1;
}

static uint32_t little(const uint8_t *bytes, int count) {
    uint32_t made = 0;
    while (count-- > 0) made = made << 8 | bytes[count];
    return made;
}

/* An integer of the matrix's element type, less the offset. */
static int64_t read_integer(const matrix *m, const uint8_t *bytes) {
    int size = ELEMENT_BYTES[m->element];
    int64_t value = little(bytes, size);
    int is_signed = m->element == INT8 || m->element == INT16 || m->element == INT32;
    if (is_signed && value >> (8 * size - 1)) value -= (int64_t)1 << (8 * size);
    value -= m->offset;
    return value < 1 - LARGEST ? 1 - LARGEST : value > LARGEST - 1 ? LARGEST - 1 : value;
}

/* What a decoded value means as bytes; 0 where the element can't hold it. */
static int write_element(const knowledge *known, const matrix *m, size_t row, int64_t value, uint8_t *out) {
    static const int64_t low[5] = {-128, 0, -32768, 0, -2147483647 - 1}, high[5] = {127, 255, 32767, 65535, 2147483647};
    uint32_t word;
    int k;
    if (m->element == FLOAT32) {
        float scale, product;
        memcpy(&scale, &known->words[row % MOST_VALUES], 4);
        product = (float)((double)scale * (double)value);
        memcpy(&word, &product, 4);
    } else if (m->values) {
        if (value < 0 || value >= (int64_t)m->values) return 0;
        word = known->words[value];
    } else {
        if (value < low[m->element] || value > high[m->element]) return 0;
        word = (uint32_t)value;
    }
    for (k = 0; k < ELEMENT_BYTES[m->element]; k++) out[k] = (uint8_t)(word >> (8 * k));
    return 1;
}

static void refresh(uint32_t *states) {
    int k;
    for (k = 0; k < LEVEL_STATES; k++)
        if ((states[k] & 1023) > KEPT) states[k] = (states[k] & 0xfffffc00u) | KEPT;
}

static void lay_out(scales *s, const matrix *m, int32_t *room) {
    size_t outer = m->coded_columns / m->period + 1;
    s->above = room;
    s->here = s->above + m->coded_columns;
    s->column = s->here + m->coded_columns;
    s->inside = s->column + m->coded_columns;
    s->outside = s->inside + m->period;
    s->row = s->all = 0;
    s->a = s->b = 0;
    memset(room, 0, (3 * m->coded_columns + m->period + outer) * sizeof *room);
}

static void read_words(coder *c, const matrix *m) {
    size_t count = m->element == FLOAT32 ? m->rows : m->values, k;
    int wide = m->element != WORD16;
    for (k = 0; k < count; k++) {
        uint32_t high = wide ? read_plain(c, 16) : 0;
        c->known->words[k] = high << 16 | read_plain(c, 16);
    }
}

/* One level at (i, j): decoded, remembered as a neighbour, and returned as the tensor's value less its offset. */
static int64_t read_value(coder *c, const matrix *m, scales *s, size_t i, size_t j, const uint8_t *held, uint32_t step) {
    context x;
    int64_t level, known = 0, value;
    x.count = m->contexts;
    x.weights = c->known->level_weights + m->contexts * LEVEL_MIXTURES * CONTEXTS;
    gather(c->known, m, s, i, j, &x);
    if (held) {
        known = read_integer(m, held);
        gather_base(&x, known);
    }
    level = read_level(c, &x, m->balanced);
    value = step ? on_grid(c, level, step, (uint32_t)m->top) : level + known;
    s->here[j] = (int32_t)level;
    observe(c->known, m, s, i, j, level);
    return value;
}

static fw_status read_levels(coder *c, const matrix *m, const uint8_t *base, uint8_t *out, int32_t *room) {
    size_t size = ELEMENT_BYTES[m->element], i, j;
    fw_status status = FW_OK;
    scales s;
    read_words(c, m);
    lay_out(&s, m, room);
    if (!TRUSTING) refresh(c->known->level_states);
    for (i = 0; i < m->coded_rows; i++) {
        uint32_t step = m->top ? read_step(c) : 0;
        int32_t *swapped = s.above;
        s.row = s.all, s.a = s.b = 0;
        for (j = 0; j < m->coded_columns; j++) {
            size_t at = (m->across ? j * m->columns + i : i * m->columns + j) * size;
            int64_t value = read_value(c, m, &s, i, j, base ? base + at : NULL, step);
            if (!write_element(c->known, m, m->across ? j : i, value + m->offset, out + at)) status = FW_FORMAT;
        }
        s.above = s.here, s.here = swapped;
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ container */

/* A place in bytes that are read front to back; `failed` stays set once something was missing or out of bounds. */
typedef struct {
    const uint8_t *data;
    size_t count, place;
    fw_status failed;
} cursor;

static const uint8_t *take(cursor *at, size_t count) {
    if (at->failed == FW_OK && count > at->count - at->place) at->failed = FW_MORE;
    if (at->failed != FW_OK) return NULL;
    at->place += count;
    return at->data + at->place - count;
}

static uint32_t byte(cursor *at) {
    const uint8_t *found = take(at, 1);
    return found ? *found : 0;
}

static size_t number(cursor *at, size_t most) {
    uint64_t value = 0;
    int shift;
    for (shift = 0; shift < 35; shift += 7) {
        uint32_t found = byte(at);
        value |= (uint64_t)(found & 127) << shift;
        if (found < 128) break;
    }
    if (at->failed == FW_OK && (shift == 35 || value > most)) at->failed = FW_FORMAT;
    return at->failed == FW_OK ? (size_t)value : 0;
}

static uint32_t checksum(const uint8_t *data, size_t count) {
    static const uint32_t nibble[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = 0xffffffffu;
    while (count--) {
        crc ^= *data++;
        crc = nibble[crc & 15] ^ crc >> 4;
        crc = nibble[crc & 15] ^ crc >> 4;
    }
    return ~crc;
}

static void check(cursor *at, size_t start) {
    size_t end = at->place;
    const uint8_t *sum = take(at, 4);
    if (sum && little(sum, 4) != checksum(at->data + start, end - start) && !TRUSTING) at->failed = FW_DAMAGED;
}

static void take_hash(cursor *at, uint8_t *hash) {
    const uint8_t *found = take(at, 32);
    if (found) memcpy(hash, found, 32);
}

fw_status fw_read_info(const uint8_t *bytes, size_t count, fw_info *info, size_t *used) {
    cursor at = {bytes, count, 0, FW_OK};
    const uint8_t *magic = take(&at, 4);
    uint32_t version, flags;
    memset(info, 0, sizeof *info);
    if (magic && memcmp(magic, "FWPK", 4) != 0) return FW_FORMAT;
    version = byte(&at), flags = byte(&at);
    if (at.failed == FW_OK && version != 1) return FW_VERSION;
    if (flags & ~1u) return FW_FORMAT;
    info->output_bytes = number(&at, MOST_BYTES);
    take_hash(&at, info->sha256);
    info->columns = number(&at, MOST_COLUMNS);
    info->sections = (uint32_t)number(&at, MOST_SECTIONS);
    info->has_base = (int)flags;
    if (flags) {
        info->base_bytes = number(&at, MOST_BYTES);
        take_hash(&at, info->base_sha256);
    }
    info->description_bytes = number(&at, MOST_DESCRIPTION);
    info->description = take(&at, info->description_bytes);
    check(&at, 0);
    *used = at.place;
    return at.failed;
}

/* Where a piece begins in the base; its failure is the cursor's. */
static const uint8_t *place_in_base(cursor *at, const fw_decoder *d, int based, size_t length, size_t *place) {
    *place = 0;
    if (!based) return NULL;
    if (length > d->info.base_bytes) {
        at->failed = FW_FORMAT;
        return NULL;
    }
    *place = number(at, d->info.base_bytes - length);
    return at->failed == FW_OK ? d->base + *place : NULL;
}

static int64_t unsigned_back(size_t value) { return value & 1 ? -(int64_t)((value + 1) / 2) : (int64_t)(value / 2); }

static int sound_matrix(const matrix *m, const fw_info *info) {
    int word = m->element == WORD16 || m->element == WORD32;
    if (m->period == 0 || m->period > m->coded_columns || m->coded_columns > info->columns) return 0;
    if (word != (m->values > 0) || (m->based && (m->top || word || m->element == FLOAT32))) return 0;
    return m->element != FLOAT32 || (m->rows <= MOST_VALUES && !m->across && !m->offset);
}

static void describe_matrix(cursor *at, const fw_decoder *d, uint32_t flags, size_t length, matrix *m) {
    size_t size;
    memset(m, 0, sizeof *m);
    m->length = length;
    m->element = (int)byte(at);
    m->contexts = (int)byte(at);
    if (at->failed != FW_OK) return;
    if (m->element >= ELEMENTS || m->contexts < FEWEST_CONTEXTS || m->contexts > CONTEXTS) at->failed = FW_FORMAT;
    if (at->failed != FW_OK) return;
    size = ELEMENT_BYTES[m->element];
    m->across = (flags & 16) != 0, m->balanced = (flags & 32) != 0, m->based = (flags & 64) != 0;
    m->rows = number(at, length / size);
    m->period = number(at, MOST_COLUMNS);
    m->offset = unsigned_back(number(at, (size_t)1 << 17));
    m->top = (int64_t)number(at, 256);
    m->values = number(at, MOST_VALUES);
    place_in_base(at, d, m->based, length, &m->base);
    if (at->failed != FW_OK) return;
    if (m->rows == 0 || length % (size * m->rows) != 0) {
        at->failed = FW_FORMAT;
        return;
    }
    m->columns = length / size / m->rows;
    m->coded_rows = m->across ? m->columns : m->rows;
    m->coded_columns = m->across ? m->rows : m->columns;
    if (!sound_matrix(m, &d->info)) at->failed = FW_FORMAT;
}

/* A piece's description; with a coder it is decoded too. */
typedef struct {
    uint32_t kind, element, stored;
    size_t length, back;
    const uint8_t *base;
    matrix m;
} piece;

static void describe_piece(cursor *at, const fw_decoder *d, size_t room, piece *p) {
    uint32_t flags = byte(at);
    size_t place;
    memset(p, 0, sizeof *p);
    p->kind = flags & 15;
    p->length = number(at, room);
    if (p->kind > LEVELS || flags & 128 || (p->kind != LEVELS && flags & 48) || (p->kind == STORED && flags & 64) ||
        p->length == 0)
        at->failed = at->failed == FW_OK ? FW_FORMAT : at->failed;
    if (at->failed != FW_OK || p->kind == STORED) return;
    if (p->kind == LEVELS) {
        describe_matrix(at, d, flags, p->length, &p->m);
        p->base = p->m.based && at->failed == FW_OK ? d->base + p->m.base : NULL;
        return;
    }
    p->element = byte(at);
    if (p->kind == PLANES)
        p->stored = byte(at);
    else
        p->back = number(at, p->length);
    p->base = place_in_base(at, d, (flags & 64) != 0, p->length, &place);
    if (at->failed != FW_OK) return;
    if ((p->element != 1 && p->element != 2 && p->element != 4 && p->element != 8) ||
        (p->kind == PLANES && (p->element == 1 || p->length % p->element || p->stored >> p->element)))
        at->failed = FW_FORMAT;
}

static void read_planes(coder *c, const fw_decoder *d, const piece *p) {
    size_t count = p->length / p->element;
    uint32_t plane = p->element;
    while (plane-- > 0) {
        walk w;
        if (p->stored >> plane & 1) {
            store(c, d->output + d->place + plane, count, p->element);
            continue;
        }
        w.start = d->place + plane, w.count = count, w.stride = p->element, w.element = plane + 1;
        w.reference = p->base ? p->base + plane : NULL;
        w.back = 0, w.ahead = plane + 1 < p->element;
        read_bytes(c, d->output, &w);
    }
}

static fw_status read_piece(coder *c, const fw_decoder *d, const piece *p) {
    walk w;
    if (p->kind == STORED) store(c, d->output + d->place, p->length, 1);
    if (p->kind == PLANES) read_planes(c, d, p);
    if (p->kind == LEVELS)
        return read_levels(c, &p->m, p->base, d->output + d->place, (int32_t *)(void *)(c->known + 1));
    if (p->kind != BYTES) return FW_OK;
    w.start = d->place, w.count = p->length, w.stride = 1, w.element = p->element;
    w.reference = p->base, w.back = p->back, w.ahead = 0;
    read_bytes(c, d->output, &w);
    return FW_OK;
}

static knowledge *knowledge_in(uint8_t *work) {
    size_t odd = (size_t)((uintptr_t)work % 64);
    return (knowledge *)(void *)(work + (odd ? 64 - odd : 0));
}

/* Check all descriptions of a section and leave the cursor at its stream. */
static fw_status check_section(cursor *at, const fw_decoder *d, size_t *pieces, size_t *first) {
    size_t room = number(at, d->info.output_bytes - d->place), k;
    piece p;
    *pieces = number(at, MOST_PIECES);
    *first = at->place;
    for (k = 0; k < *pieces && at->failed == FW_OK; k++) {
        describe_piece(at, d, room, &p);
        room -= at->failed == FW_OK ? p.length : 0;
    }
    if (at->failed == FW_OK && room) at->failed = FW_FORMAT;
    return at->failed == FW_MORE ? FW_FORMAT : at->failed; /* the body is all there: what is missing isn't to come */
}

static fw_status read_section(fw_decoder *d, const uint8_t *body, size_t count) {
    cursor at = {body, count, 0, FW_OK};
    size_t pieces, first, k;
    fw_status status = check_section(&at, d, &pieces, &first);
    coder c;
    if (status != FW_OK) return status;
    start_coder(&c, body + at.place, count - at.place, knowledge_in(d->work));
    at.place = first;
    for (k = 0; k < pieces && status == FW_OK; k++) {
        piece p;
        describe_piece(&at, d, d->info.output_bytes - d->place, &p);
        status = read_piece(&c, d, &p);
        d->place += p.length;
    }
    return status;
}

fw_status fw_section(fw_decoder *d, const uint8_t *bytes, size_t count, size_t *used) {
    cursor at = {bytes, count, 0, FW_OK};
    size_t length = number(&at, MOST_BYTES), start = at.place;
    fw_status status;
    if (d->section >= d->info.sections) return FW_FORMAT;
    take(&at, length);
    check(&at, start);
    if (at.failed != FW_OK) return at.failed;
    status = read_section(d, bytes + start, length);
    d->section++;
    *used = at.place;
    if (status != FW_OK) d->section = d->info.sections + 1; /* nothing more can come of it */
    return status;
}

/* ------------------------------------------------------------------------------------------- SHA-256 (FIPS 180-4) */

static uint32_t turned(uint32_t x, int n) { return x >> n | x << (32 - n); }

static const uint32_t ROUNDS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static void hash_block(uint32_t *state, const uint8_t *block) {
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
    uint32_t w[64];
    int k;
    for (k = 0; k < 16; k++)
        w[k] = (uint32_t)block[4 * k] << 24 | (uint32_t)block[4 * k + 1] << 16 | (uint32_t)block[4 * k + 2] << 8 |
               block[4 * k + 3];
    for (; k < 64; k++) {
        uint32_t x = w[k - 15], y = w[k - 2];
        w[k] = w[k - 16] + (turned(x, 7) ^ turned(x, 18) ^ x >> 3) + w[k - 7] + (turned(y, 17) ^ turned(y, 19) ^ y >> 10);
    }
    for (k = 0; k < 64; k++) {
        uint32_t one = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[k] + w[k];
        uint32_t two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + one;
        d = c, c = b, b = a, a = one + two;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

static int hash_differs(const uint8_t *data, size_t count, const uint8_t *wanted) {
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t tail[128];
    size_t whole = count / 64 * 64, left = count - whole, end = left < 56 ? 64 : 128, k;
    int differs = 0;
    for (k = 0; k < whole; k += 64) hash_block(state, data + k);
    memset(tail, 0, sizeof tail);
    if (left) memcpy(tail, data + whole, left);
    tail[left] = 0x80;
    for (k = 0; k < 8; k++) tail[end - 1 - k] = (uint8_t)((uint64_t)count * 8 >> (8 * k));
    for (k = 0; k < end; k += 64) hash_block(state, tail + k);
    for (k = 0; k < 32; k++) differs |= wanted[k] ^ (uint8_t)(state[k / 4] >> (24 - 8 * (k % 4)));
    return differs;
}

/* ------------------------------------------------------------------------------------------------------- in and out */

size_t fw_work_bytes(const fw_info *info) { return 64 + sizeof(knowledge) + 20 * (info->columns + 1); }

fw_status fw_open(fw_decoder *d, const fw_info *info, const uint8_t *base, size_t base_bytes, uint8_t *output,
                  size_t output_bytes, uint8_t *work, size_t work_bytes) {
    memset(d, 0, sizeof *d);
    d->info = *info;
    d->info.description = NULL; /* the caller's bytes may be gone by the next section */
    d->base = info->has_base ? base : NULL;
    d->output = output;
    d->work = work;
    if (output_bytes < info->output_bytes || work_bytes < fw_work_bytes(info)) return FW_ROOM;
    if (info->has_base) {
        if (!base || base_bytes != info->base_bytes) return FW_BASE;
        if (!TRUSTING && hash_differs(base, base_bytes, info->base_sha256)) return FW_BASE;
    }
    memset(output, 0, info->output_bytes);
    if (TRUSTING && knowledge_in(work)->starts[1] == 1) {
        memset(knowledge_in(work)->matches, 0, sizeof knowledge_in(work)->matches);
        return FW_OK;
    }
    forget_all(knowledge_in(work));
    return FW_OK;
}

fw_status fw_close(fw_decoder *d) {
    if (d->section != d->info.sections || d->place != d->info.output_bytes) return FW_FORMAT;
    return hash_differs(d->output, d->place, d->info.sha256) ? FW_DAMAGED : FW_OK;
}

fw_status fw_decode(const uint8_t *package, size_t count, const uint8_t *base, size_t base_bytes, uint8_t *output,
                    size_t output_bytes, uint8_t *work, size_t work_bytes) {
    fw_info info;
    fw_decoder decoder;
    size_t at = 0, used = 0;
    fw_status status = fw_read_info(package, count, &info, &at);
    if (status == FW_OK) status = fw_open(&decoder, &info, base, base_bytes, output, output_bytes, work, work_bytes);
    while (status == FW_OK && decoder.section < info.sections) {
        status = fw_section(&decoder, package + at, count - at, &used);
        at += used;
    }
    if (status == FW_OK && at != count) status = FW_FORMAT;
    if (status == FW_OK) status = fw_close(&decoder);
    return status == FW_MORE ? FW_FORMAT : status;
}

const char *fw_message(fw_status status) {
    static const char *const messages[] = {"done",
                                           "the package ends too early",
                                           "not a package, or a broken one",
                                           "a package of another version",
                                           "damaged: a checksum differs",
                                           "an update of another version than the one given",
                                           "too little room was given"};
    return (size_t)status < sizeof messages / sizeof *messages ? messages[status] : "unknown";
}
