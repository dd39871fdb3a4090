/* A libFuzzer harness for the C decoder. Checksums are off (FW_FUZZING), or nothing would get past them.
 *
 *     clang -std=c99 -g -O2 -DFW_FUZZING -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
 *         -I featherweight/packaging/decoder tests/packaging/fuzz_decoder.c \
 *         featherweight/packaging/decoder/featherweight_decoder.c -o fuzz && ./fuzz -max_len=512 corpus
 *
 * Output and room end at the byte, so that a step outside them is found. The earlier version of an update is
 * the package's own bytes, again and again. Larger outputs are refused, to keep an execution short: every branch of
 * the decoder is reached with a hundred bytes, -DFUZZ_OUTPUT=4096 -DFUZZ_COLUMNS=2048 looks further, at a tenth of the
 * pace.
 */
#include "featherweight_decoder.h"

#include <sanitizer/asan_interface.h>
#include <stdlib.h>

#ifndef FUZZ_OUTPUT
#define FUZZ_OUTPUT 128
#define FUZZ_COLUMNS 64
#endif

static uint8_t *base_of(const fw_info *info, const uint8_t *data, size_t count) {
    uint8_t *base = info->has_base && info->base_bytes ? malloc(info->base_bytes) : NULL;
    size_t k;
    for (k = 0; base && k < info->base_bytes; k++) base[k] = data[k % count];
    return base;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count) {
    static uint8_t *work; /* made once: it is 5 MB */
    static size_t room;
    fw_info info;
    size_t used;
    uint8_t *output, *base;
    if (fw_read_info(data, count, &info, &used) != FW_OK) return 0;
    if (info.output_bytes > FUZZ_OUTPUT || info.columns > FUZZ_COLUMNS || info.base_bytes > FUZZ_OUTPUT) return 0;
    if (!work) {
        fw_info widest = info;
        widest.columns = FUZZ_COLUMNS;
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
