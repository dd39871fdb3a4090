/* A libFuzzer harness for the C decoder. Checksums are off (FW_FUZZING), or nothing would get past them.
 *
 *     clang -std=c99 -g -O1 -DFW_FUZZING -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
 *         -I featherweight/packaging/decoder tests/packaging/fuzz_decoder.c \
 *         featherweight/packaging/decoder/featherweight_decoder.c -o fuzz && ./fuzz corpus
 *
 * Output and room end at the byte, so that a step outside them is found. The earlier version of an update is
 * the package's own bytes, again and again. Outputs over 1 KB are refused, to keep an execution short.
 */
#include "featherweight_decoder.h"

#include <sanitizer/asan_interface.h>
#include <stdlib.h>

enum { MOST_OUTPUT = 1 << 10, MOST_COLUMNS = 1 << 11 };

static uint8_t *base_of(const fw_info *info, const uint8_t *data, size_t count) {
    uint8_t *base = info->has_base && info->base_bytes ? malloc(info->base_bytes) : NULL;
    size_t k;
    for (k = 0; base && k < info->base_bytes; k++) base[k] = data[k % count];
    return base;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count) {
    static uint8_t *work; /* made once: it is 4 MB */
    static size_t room;
    fw_info info;
    size_t used;
    uint8_t *output, *base;
    if (fw_read_info(data, count, &info, &used) != FW_OK) return 0;
    if (info.output_bytes > MOST_OUTPUT || info.columns > MOST_COLUMNS || info.base_bytes > MOST_OUTPUT) return 0;
    if (!work) {
        fw_info widest = info;
        widest.columns = MOST_COLUMNS;
        room = fw_work_bytes(&widest);
        work = calloc(room, 1);
    }
    __asan_unpoison_memory_region(work, room);
    __asan_poison_memory_region(work + fw_work_bytes(&info), room - fw_work_bytes(&info));
    output = malloc(info.output_bytes ? info.output_bytes : 1);
    base = base_of(&info, data, count);
    (void)fw_decode(data, count, base, info.base_bytes, output, info.output_bytes, work, fw_work_bytes(&info));
    free(output);
    free(base);
    return 0;
}
