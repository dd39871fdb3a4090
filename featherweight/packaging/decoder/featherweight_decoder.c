/* Featherweight package decoder. The format is in docs/package-format.md; names are those of the Python encoder.
 * All arithmetic is on integers of known width (scaled floats excepted: one exact product, rounded once). */
#include "featherweight_decoder.h"

#include <string.h>

enum {
    CONTEXTS = 6,
    NODES = 32,
    TREE = 16, /* the tree's first node; the chain's are below */
    /* Where each context's places for a magnitude begin, and how many they all are; the same for a sign. */
    SIZE_1 = 1,
    SIZE_2 = SIZE_1 + 24 * 24,
    SIZE_3 = SIZE_2 + 24 * 24,
    SIZE_4 = SIZE_3 + 512 + 128,
    SIZE_5 = SIZE_4 + 12 * 12,
    SIZES = SIZE_5 + 12 * 12,
    SIGN_0 = SIZES * NODES, /* where three contexts count, the sign is coded alone, here, under the second's 27 */
    SIGN_1 = SIGN_0 + 27,
    SIGN_2 = SIGN_1 + 27,
    SIGN_3 = SIGN_2 + 3 * 24,
    SIGN_4 = SIGN_3 + 64 + 128,
    SIGN_5 = SIGN_4 + 3 * 12,
    MIXED_STATES = SIGN_5 + 3 * 12,
    RESTS = 0,
    ESCAPES = RESTS + 64,
    STEPS = ESCAPES + 32,
    TIES = STEPS + 256,
    ALONE_STATES = TIES + 16,
    STRIDE = 8, /* from one mixture's weights to the next one's */
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
    BLOCK = 64,
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

/* Bits are decoded faster where the coder's state stays in registers, all the way down. */
#ifdef __GNUC__
#define INLINE inline __attribute__((always_inline))
#else
#define INLINE inline
#endif

#define MOST_BYTES 0x7fffffffu
#define FRESH 0x80000000u

enum { STORED, BYTES, PLANES, LEVELS };
enum { INT8, UINT8, INT16, UINT16, INT32, WORD16, WORD32, FLOAT32, ELEMENTS };

static const uint8_t ELEMENT_BYTES[ELEMENTS] = {1, 1, 2, 2, 4, 2, 4, 4};

/* ------------------------------------------------------------------------------------------------ what is learnt */

/* A probability in the upper 22 bits and a count in the lower 10; and the logit, which takes long to look up where the
 * next bit waits for it. */
typedef struct {
    uint32_t held;
    int32_t logit;
} mixed_state;

/* A context's decisions of one tree fill 128 bytes, cache lines: the levels' states come first, at a multiple of 64. */
typedef struct {
    mixed_state mixed[MIXED_STATES];
    uint32_t alone[ALONE_STATES];
    int last_balanced, last_contexts; /* of the matrix before */
    int16_t stretch[4096];
    uint16_t squash[4096];
    uint16_t rates[1024];
    int32_t starts[16];
    uint8_t bucket[ESCAPE + 1];
    uint8_t scale[16384];
    int32_t level_weights[(CONTEXTS + 1) * LEVEL_MIXTURES * STRIDE];
    int plain_known; /* what follows is made where it is first used: most of the room is there */
    uint8_t made[PLAIN_STATES / BLOCK];
    uint32_t plain_states[PLAIN_STATES];
    int32_t plain_weights[PLAIN_MIXTURES * STRIDE];
    uint32_t matches[1 << HASH_BITS]; /* place plus one, 0 is none */
    uint32_t words[MOST_VALUES];
} knowledge;

/* The range coder's interval is [low, low + width]; what of the stream is in view lies `offset` above low. */
typedef struct {
    const uint8_t *stream;
    size_t count, next;
    uint32_t low, width, offset;
    knowledge *known;
} coder;

/* Shift right, rounding towards minus infinity, for negative numbers too: C99 leaves that to the compiler. */
#if -1 >> 1 == -1
static INLINE int64_t down(int64_t value, int bits) { return value >> bits; }
static INLINE int32_t down_32(int32_t value, int bits) { return value >> bits; }
#else
static INLINE int64_t down(int64_t value, int bits) { return value < 0 ? ~(~value >> bits) : value >> bits; }
static INLINE int32_t down_32(int32_t value, int bits) { return value < 0 ? ~(~value >> bits) : value >> bits; }
#endif

static int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

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
    for (k = 0; k < 1024; k++) known->rates[k] = (uint16_t)(131072 / (2 * k + 3));
    for (k = 0; k < 16; k++) known->starts[k] = k < 4 ? k : (k & 1 ? 3 << (k / 2 - 1) : 1 << (k / 2));
    for (k = 0; k <= ESCAPE; k++) {
        while (bucket < LAST && known->starts[bucket + 1] <= k) bucket++;
        known->bucket[k] = (uint8_t)bucket;
    }
}

static void forget_levels(knowledge *known) {
    int k;
    mixed_state fresh;
    fresh.held = FRESH, fresh.logit = known->stretch[FRESH >> 20];
    for (k = 0; k < MIXED_STATES; k++) known->mixed[k] = fresh;
    for (k = 0; k < ALONE_STATES; k++) known->alone[k] = FRESH;
    known->last_balanced = known->last_contexts = 0;
    for (k = 0; k < (CONTEXTS + 1) * LEVEL_MIXTURES * STRIDE; k++) {
        int count = k / (LEVEL_MIXTURES * STRIDE);
        known->level_weights[k] = WEIGHT_ONE / (count > 0 ? count : 1);
    }
}

static void forget_plain(knowledge *known) {
    int k;
    memset(known->matches, 0, sizeof known->matches);
    if (!TRUSTING) memset(known->made, 0, sizeof known->made);
    for (k = 0; k < PLAIN_MIXTURES * STRIDE; k++) known->plain_weights[k] = WEIGHT_ONE / CONTEXTS;
    known->plain_known = 1;
}

/* A state of the plain model: most are never looked at, so a block is made where one of it is. */
static INLINE uint32_t *plain_state(knowledge *known, uint32_t place) {
    uint32_t block = place / BLOCK, k;
    if (!known->made[block]) {
        for (k = 0; k < BLOCK; k++) known->plain_states[block * BLOCK + k] = FRESH;
        known->made[block] = 1;
    }
    return known->plain_states + place;
}

/* ---------------------------------------------------------------------------------------------------- range coder */

static INLINE uint32_t next_byte(coder *c) { return c->next < c->count ? c->stream[c->next++] : 0; }

static void start_coder(coder *c, const uint8_t *stream, size_t count, knowledge *known) {
    int k;
    c->stream = stream, c->count = count, c->next = 0;
    c->low = 0, c->width = 0xffffffffu, c->offset = 0;
    c->known = known;
    for (k = 0; k < 4; k++) c->offset = c->offset << 8 | next_byte(c);
}

/* One bit whose probability of being one is chance / 65536. Which it is can't be foreseen, so no branch depends on it. */
static INLINE uint32_t read_bit(coder *c, uint32_t chance) {
    uint32_t part = (uint32_t)((uint64_t)c->width * chance >> 16);
    uint32_t zero = (uint32_t)((uint64_t)((int64_t)part - (int64_t)c->offset) >> 32); /* all bits set, or none */
    uint32_t low = c->low + ((part + 1) & zero), width = part + ((c->width - part - 1 - part) & zero);
    c->offset -= (part + 1) & zero;
    while ((low ^ (low + width)) < 1u << 24) {
        low <<= 8;
        width = width << 8 | 0xff;
        c->offset = c->offset << 8 | next_byte(c);
    }
    c->low = low, c->width = width;
    return zero + 1;
}

static uint32_t read_plain(coder *c, int bits) {
    uint32_t made = 0;
    while (bits-- > 0) made = made << 1 | read_bit(c, 1u << 15);
    return made;
}

/* A state after a bit; `goal` is the largest probability after a one and 0 after a zero. */
static INLINE uint32_t learnt(const knowledge *known, uint32_t held, int64_t goal) {
    uint32_t count = held & 1023;
    int64_t chance = held >> 10;
    chance += down((goal - chance) * known->rates[count], 16);
    return ((uint32_t)chance << 10 | count) + (count < LIMIT);
}

static INLINE uint32_t read_alone(coder *c, uint32_t *state) {
    uint32_t held = *state, chance = held >> 16;
    uint32_t bit = read_bit(c, chance < 32 ? 32 : chance > 65504 ? 65504 : chance);
    *state = learnt(c->known, held, (int64_t)((bit << 22) - bit));
    return bit;
}

/* What one bit is mixed from, by context: states, and their logits. */
typedef struct {
    uint32_t held[CONTEXTS];
    int32_t logit[CONTEXTS];
} mixture;

/* What context `k` adds to the logit; a fresh state starts from the first one's. */
static INLINE int64_t look(mixture *m, const int32_t *weights, int k) {
    if (k > 0 && (m->held[k] & 1023) == 0) m->held[k] = (m->held[0] & ~(uint32_t)1023) | 1, m->logit[k] = m->logit[0];
    return (int64_t)weights[k] * m->logit[k];
}

static INLINE void learn(const knowledge *known, mixture *m, int32_t *weights, int32_t error, int64_t goal, int k) {
    int32_t moved = weights[k] + down_32(m->logit[k] * error + 131072, 18);
    if ((uint32_t)(moved + WEIGHT_BOUND) > 2 * WEIGHT_BOUND) moved = moved < 0 ? -WEIGHT_BOUND : WEIGHT_BOUND;
    weights[k] = moved;
    m->held[k] = learnt(known, m->held[k], goal);
}

/* The chance of a one by the mixture of `count` states. Unrolled by hand, here and below: not all compilers do. */
static INLINE int32_t foresee(const knowledge *known, mixture *m, const int32_t *weights, int count) {
    int64_t total = look(m, weights, 0);
    total += look(m, weights, 1);
    total += look(m, weights, 2);
    if (count > 3) total += look(m, weights, 3);
    if (count > 4) total += look(m, weights, 4);
    if (count > 5) total += look(m, weights, 5);
    total = down(total, 16) + 2048;
    if ((uint64_t)total > 4095) total = total < 0 ? 0 : 4095;
    return known->squash[total];
}

/* What a bit of that chance teaches the states and their weights. */
static INLINE void learn_all(const knowledge *known, mixture *m, int32_t *weights, int32_t chance, uint32_t bit,
                             int count) {
    int32_t error = ((int32_t)(bit << 16) - chance) * LEARNING;
    int64_t goal = (int64_t)((bit << 22) - bit);
    learn(known, m, weights, error, goal, 0);
    learn(known, m, weights, error, goal, 1);
    learn(known, m, weights, error, goal, 2);
    if (count > 3) learn(known, m, weights, error, goal, 3);
    if (count > 4) learn(known, m, weights, error, goal, 4);
    if (count > 5) learn(known, m, weights, error, goal, 5);
}

static INLINE uint32_t read_mixed(coder *c, mixture *m, int32_t *weights, int count) {
    int32_t chance = foresee(c->known, m, weights, count);
    uint32_t bit = read_bit(c, (uint32_t)chance);
    learn_all(c->known, m, weights, chance, bit, count);
    return bit;
}

static INLINE void fetch(mixture *m, mixed_state *const *from, size_t slot, int k) {
    m->held[k] = from[k][slot].held, m->logit[k] = from[k][slot].logit;
}

/* What stands at `slot` behind each of `count` places. */
static INLINE void fetch_all(mixture *m, mixed_state *const *from, size_t slot, int count) {
    fetch(m, from, slot, 0), fetch(m, from, slot, 1), fetch(m, from, slot, 2);
    if (count > 3) fetch(m, from, slot, 3);
    if (count > 4) fetch(m, from, slot, 4);
    if (count > 5) fetch(m, from, slot, 5);
}

static INLINE void keep(const knowledge *known, const mixture *m, mixed_state *const *to, size_t slot, int k) {
    to[k][slot].held = m->held[k], to[k][slot].logit = known->stretch[m->held[k] >> 20];
}

static INLINE void keep_all(const knowledge *known, const mixture *m, mixed_state *const *to, size_t slot, int count) {
    keep(known, m, to, slot, 0), keep(known, m, to, slot, 1), keep(known, m, to, slot, 2);
    if (count > 3) keep(known, m, to, slot, 3);
    if (count > 4) keep(known, m, to, slot, 4);
    if (count > 5) keep(known, m, to, slot, 5);
}

static INLINE uint32_t read_level_bit(coder *c, mixed_state *const *places, size_t slot, int32_t *weights, int count) {
    mixture m;
    uint32_t bit;
    fetch_all(&m, places, slot, count);
    bit = read_mixed(c, &m, weights, count);
    keep_all(c->known, &m, places, slot, count);
    return bit;
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
    uint32_t places[CONTEXTS], *states[CONTEXTS], node = 1;
    mixture m;
    int shift, k;
    for (shift = 7; shift >= 0; shift--) {
        uint32_t follows = length > 0 && (guess | 256) >> (shift + 1) == node ? length : 0;
        places[0] = node;
        places[1] = FIRST + rows[0] + node;
        places[2] = SECOND + ((rows[1] + node * 40503u) & (HASHED - 1));
        places[3] = THIRD + ((rows[2] + node * 40503u) & (HASHED - 1));
        places[4] = REFERENCE + rows[3] + node;
        places[5] = MATCH + (follows ? follows * 2 + ((guess >> shift) & 1) : 0);
        for (k = 0; k < CONTEXTS; k++) {
            states[k] = plain_state(known, places[k]);
            m.held[k] = *states[k];
            m.logit[k] = known->stretch[m.held[k] >> 20];
        }
        node = node * 2 + read_mixed(c, &m, known->plain_weights + follows * STRIDE, CONTEXTS);
        for (k = 0; k < CONTEXTS; k++) *states[k] = m.held[k];
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
    if (!c->known->plain_known) forget_plain(c->known);
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
    int32_t row, all;
} scales;

/* One row of a matrix, as coded, in memory. */
typedef struct {
    const uint8_t *base; /* the earlier version's matrix; NULL: none */
    uint8_t *out;
    size_t at, stride; /* its first element in both, and how far the next one lies, in bytes */
    uint32_t step;     /* its own grid's; 0: none */
} matrix_row;

/* The contexts of one level: states of its magnitude's first decision and of its sign. */
typedef struct {
    mixed_state *size[CONTEXTS], *sign[CONTEXTS];
    int32_t *weights; /* of the mixtures of so many */
} context;

static INLINE uint32_t scale_of(const knowledge *known, int32_t mean) {
    uint32_t place = (uint32_t)mean >> 4;
    return known->scale[place < 16383 ? place : 16383];
}

static INLINE uint32_t magnitude(int32_t level) { return level < 0 ? 0u - (uint32_t)level : (uint32_t)level; }

static INLINE uint32_t capped(uint32_t value, uint32_t most) { return value < most ? value : most; }

static INLINE uint32_t bucket_of(const knowledge *known, int32_t level) {
    return known->bucket[capped(magnitude(level), ESCAPE)];
}

static INLINE uint32_t side_of(int32_t level) { return (uint32_t)(level > 0) + 2 * (uint32_t)(level < 0); }

static INLINE void gather(knowledge *known, const matrix *m, const scales *s, size_t i, size_t j, int count,
                          context *x) {
    size_t a = s->a, b = s->b;
    int32_t before = j > 0 ? s->here[j - 1] : 0, second = j > 1 ? s->here[j - 2] : before;
    int32_t back = j >= m->period ? s->here[j - m->period] : before, above = i > 0 ? s->above[j] : before;
    int32_t mean = i > 0 ? s->column[j] : (s->inside[a] + (a > 0 ? s->outside[b] : s->all)) >> 1;
    uint32_t column = scale_of(known, mean), row = scale_of(known, s->row), side = side_of(before);
    uint32_t above_side = i > 0 ? side_of(above) : 0, back_side = j >= m->period ? side_of(back) : 0, near, far, up;
    mixed_state *sizes = known->mixed;
    x->size[0] = sizes;
    x->size[1] = sizes + (SIZE_1 + column * 24 + row) * NODES;
    x->size[2] = sizes + (SIZE_2 + scale_of(known, s->inside[a]) * 24 + scale_of(known, s->outside[b])) * NODES;
    x->sign[0] = sizes + SIGN_0;
    x->sign[1] = sizes + SIGN_1 + side * 9 + above_side * 3 + back_side;
    if (count == FEWEST_CONTEXTS) return;
    near = capped(bucket_of(known, before), 11), far = capped(bucket_of(known, back), 11);
    up = capped(bucket_of(known, above), 11);
    second = (int32_t)capped(bucket_of(known, second), 7);
    x->size[3] = sizes + (SIZE_3 + capped(near, 7) * 64 + (uint32_t)second * 8 + capped(far, 7)) * NODES;
    x->size[4] = sizes + (SIZE_4 + near * 12 + up) * NODES;
    x->size[5] = sizes + (SIZE_5 + far * 12 + (column >> 1)) * NODES;
    x->sign[2] = sizes + SIGN_2 + side * 24 + row;
    x->sign[3] = sizes + SIGN_3 + side * 12 + near;
    x->sign[4] = sizes + SIGN_4 + back_side * 12 + far;
    x->sign[5] = sizes + SIGN_5 + above_side * 12 + up;
}

static void gather_base(knowledge *known, context *x, int32_t held) {
    uint32_t place = capped(magnitude(held), 63) * 2 + (held < 0);
    x->size[3] = known->mixed + (SIZE_3 + 512 + place) * NODES;
    x->sign[3] = known->mixed + SIGN_3 + 64 + place;
}

static INLINE uint32_t read_bucket(coder *c, const context *x, int count, int balanced) {
    uint32_t node = 1, reached = 0;
    for (;;) {
        uint32_t slot = balanced ? TREE + node - 1 : reached, bit;
        bit = read_level_bit(c, x->size, slot, x->weights + slot * STRIDE, count);
        node = node * 2 + bit;
        if (balanced) {
            if (++reached == 4) return node - 16;
        } else {
            reached += bit;
            if (!bit || reached == LAST) return reached;
        }
    }
}

/* The chance at a node of the tree under the fewest contexts. */
static INLINE int32_t foresee_node(const knowledge *known, const context *x, uint32_t node, mixture *m) {
    size_t slot = TREE + node - 1;
    fetch_all(m, x->size, slot, FEWEST_CONTEXTS);
    return foresee(known, m, x->weights + slot * STRIDE, FEWEST_CONTEXTS);
}

/* One decision of that tree. A chance takes longer to work out than a bit: both that may come next are, meanwhile. */
static INLINE uint32_t read_node(coder *c, const context *x, uint32_t node, int32_t *chance, int last) {
    size_t slot = TREE + node - 1;
    mixture m;
    int32_t zero = last ? 0 : foresee_node(c->known, x, node * 2, &m);
    int32_t one = last ? 0 : foresee_node(c->known, x, node * 2 + 1, &m);
    uint32_t bit = read_bit(c, (uint32_t)*chance);
    (void)foresee_node(c->known, x, node, &m);
    learn_all(c->known, &m, x->weights + slot * STRIDE, *chance, bit, FEWEST_CONTEXTS);
    keep_all(c->known, &m, x->size, slot, FEWEST_CONTEXTS);
    *chance = zero ^ ((zero ^ one) & -(int32_t)bit); /* no branch */
    return node * 2 + bit;
}

static INLINE uint32_t read_tree(coder *c, const context *x) {
    mixture m;
    int32_t chance = foresee_node(c->known, x, 1, &m);
    uint32_t node = read_node(c, x, 1, &chance, 0);
    node = read_node(c, x, node, &chance, 0);
    node = read_node(c, x, node, &chance, 0);
    return read_node(c, x, node, &chance, 1) - 16;
}

/* Under three contexts the sign is coded alone, by a state of the first context's under the second one's place. */
static INLINE uint32_t read_sign(coder *c, const context *x, int count) {
    mixed_state *alone = x->sign[1] - (SIGN_1 - SIGN_0);
    uint32_t bit;
    if (count != FEWEST_CONTEXTS) return read_level_bit(c, x->sign, 0, x->weights + NODES * STRIDE, count);
    bit = read_alone(c, &alone->held);
    alone->logit = c->known->stretch[alone->held >> 20];
    return bit;
}

static INLINE int32_t read_rest(coder *c, uint32_t bucket) {
    uint32_t *states = c->known->alone + RESTS + bucket * 4, prefix = 1, made = 0;
    int width = (int)(bucket - 2) >> 1, left = width > 2 ? width - 2 : 0, shift;
    for (shift = width - 1; shift >= left; shift--) {
        uint32_t bit = read_alone(c, states + prefix);
        prefix = prefix * 2 + bit;
        made = made * 2 + bit;
    }
    while (left-- > 0) made = made << 1 | read_bit(c, 1u << 15);
    return (int32_t)made;
}

static int32_t read_beyond(coder *c) {
    int order = 0;
    while (order < 22 && read_alone(c, c->known->alone + ESCAPES + order)) order++;
    return (int32_t)(((uint32_t)64 << order) - 64 + read_plain(c, 6 + order));
}

static INLINE int32_t read_level(coder *c, const context *x, int count, int balanced) {
    int swift = balanced && count == FEWEST_CONTEXTS;
    uint32_t bucket = swift ? read_tree(c, x) : read_bucket(c, x, count, balanced), negative;
    int32_t size;
    if (bucket == 0) return 0;
    negative = read_sign(c, x, count);
    size = c->known->starts[bucket];
    if (bucket == LAST) {
        coder apart = *c;
        size += read_beyond(&apart);
        *c = apart;
    } else if (bucket >= 4)
        size += read_rest(c, bucket);
    return negative ? -size : size;
}

static INLINE void observe(const knowledge *known, const matrix *m, scales *s, size_t i, size_t j, int32_t level) {
    int32_t size = (int32_t)(capped(magnitude(level), 1 << 14) << 8);
    int32_t *inside = &s->inside[s->a], *outside = &s->outside[s->b];
    if (i == 0)
        s->column[j] = size;
    else
        s->column[j] += (int32_t)down((int64_t)(size - s->column[j]) * known->rates[i < 14 ? i : 14], 16);
    s->row += (int32_t)down((int64_t)(size - s->row) * known->rates[j + 2 < 22 ? j + 2 : 22], 16);
    *inside += (int32_t)down(size - *inside, 5);
    *outside += (int32_t)down(size - *outside, 5);
    s->all += (int32_t)down(size - s->all, 6);
    if (++s->a == m->period) s->a = 0, s->b++;
}

static uint32_t read_step(coder *c) {
    uint32_t node = 1;
    int k;
    for (k = 0; k < 8; k++) node = node * 2 + (uint32_t)read_alone(c, c->known->alone + STEPS + node);
    return node - 255;
}

/* A position on its row's own grid as a level, one off where rounding was close. Steps and tops are at most 256. */
static int32_t on_grid(coder *c, int32_t position, uint32_t step, uint32_t top) {
    uint32_t *ties = c->known->alone + TIES, scaled, close;
    int32_t away;
    if (step == top) return position;
    scaled = 2 * capped(magnitude(position), step) * top + step;
    away = (int32_t)(scaled / (2 * step));
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
static int32_t read_integer(const matrix *m, const uint8_t *bytes) {
    int size = ELEMENT_BYTES[m->element];
    int64_t value = little(bytes, size);
    int is_signed = m->element == INT8 || m->element == INT16 || m->element == INT32;
    if (is_signed && value >> (8 * size - 1)) value -= (int64_t)1 << (8 * size);
    value -= m->offset;
    return (int32_t)(value < 1 - LARGEST ? 1 - LARGEST : value > LARGEST - 1 ? LARGEST - 1 : value);
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

static INLINE uint32_t refreshed(uint32_t held) {
    uint32_t count = held & 1023;
    return held - (count > KEPT ? count - KEPT : 0);
}

/* Cut counts that are larger, before a new matrix. Only those that the last one used can be. */
static void refresh(knowledge *known) {
    int first = known->last_balanced ? TREE : 0, k, slot;
    for (k = 0; k < (known->last_contexts > FEWEST_CONTEXTS ? SIZES : SIZE_3) * NODES; k += NODES)
        for (slot = k + first; slot < k + first + NODES / 2; slot++)
            known->mixed[slot].held = refreshed(known->mixed[slot].held);
    for (k = SIGN_0; k < MIXED_STATES; k++) known->mixed[k].held = refreshed(known->mixed[k].held);
    for (k = 0; k < ALONE_STATES; k++) known->alone[k] = refreshed(known->alone[k]);
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

/* One row, decoded; its levels are remembered as neighbours. Coder and scales are copied, and where a function that isn't
 * inlined gets the coder, once more: what has no address can stay in registers. */
static INLINE fw_status read_row(coder *given, const matrix *m, scales *kept, size_t i, const matrix_row *r, int count,
                                 int balanced) {
    coder c = *given;
    scales s = *kept;
    context x;
    fw_status status = FW_OK;
    size_t j, at = r->at;
    x.weights = c.known->level_weights + count * LEVEL_MIXTURES * STRIDE;
    for (j = 0; j < m->coded_columns; j++, at += r->stride) {
        int32_t held = 0, level;
        int64_t value;
        gather(c.known, m, &s, i, j, count, &x);
        if (r->base) {
            held = read_integer(m, r->base + at);
            gather_base(c.known, &x, held);
        }
        level = read_level(&c, &x, count, balanced);
        s.here[j] = level;
        observe(c.known, m, &s, i, j, level);
        value = (int64_t)level + held + m->offset;
        if (r->step) {
            coder apart = c;
            value = on_grid(&apart, level, r->step, (uint32_t)m->top) + m->offset;
            c = apart;
        }
        if (m->element == INT8 && value >= -128 && value <= 127)
            r->out[at] = (uint8_t)value;
        else if (!write_element(c.known, m, m->across ? j : i, value, r->out + at))
            status = FW_FORMAT;
    }
    *given = c, *kept = s;
    return status;
}

/* The compiler makes a loop for each number of contexts, and one for trees under the fewest: levels of eight bits. */
static fw_status read_any_row(coder *c, const matrix *m, scales *s, size_t i, const matrix_row *r) {
    if (m->contexts == CONTEXTS) return read_row(c, m, s, i, r, CONTEXTS, m->balanced);
    if (m->contexts == CONTEXTS - 1) return read_row(c, m, s, i, r, CONTEXTS - 1, m->balanced);
    if (m->contexts == CONTEXTS - 2) return read_row(c, m, s, i, r, CONTEXTS - 2, m->balanced);
    return m->balanced ? read_row(c, m, s, i, r, FEWEST_CONTEXTS, 1) : read_row(c, m, s, i, r, FEWEST_CONTEXTS, 0);
}

static fw_status read_levels(coder *c, const matrix *m, const uint8_t *base, uint8_t *out, int32_t *room) {
    size_t size = ELEMENT_BYTES[m->element], i;
    fw_status status = FW_OK;
    matrix_row r;
    scales s;
    read_words(c, m);
    lay_out(&s, m, room);
    if (!TRUSTING) refresh(c->known);
    c->known->last_balanced = m->balanced, c->known->last_contexts = m->contexts;
    r.base = base, r.out = out;
    r.stride = m->across ? m->columns * size : size;
    for (i = 0; i < m->coded_rows; i++) {
        int32_t *swapped = s.above;
        r.at = m->across ? i * size : i * m->columns * size;
        r.step = m->top ? read_step(c) : 0;
        s.row = s.all, s.a = s.b = 0;
        if (read_any_row(c, m, &s, i, &r) != FW_OK) status = FW_FORMAT;
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
    uint32_t table[256], crc = 0xffffffffu, k;
    for (k = 0; k < 256; k++) {
        uint32_t half = nibble[k & 15] ^ k >> 4;
        table[k] = nibble[half & 15] ^ half >> 4;
    }
    while (count--) crc = table[(crc ^ *data++) & 255] ^ crc >> 8;
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
    knowledge *known = knowledge_in(work);
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
    known->plain_known = 0;
    if (TRUSTING && known->starts[1] == 1) return FW_OK;
    make_tables(known);
    forget_levels(known);
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
