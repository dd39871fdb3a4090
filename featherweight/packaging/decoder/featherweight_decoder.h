/* Featherweight package decoder: one C99 file, libc only.
 *
 * It turns a package (docs/package-format.md) back into the artefact, bit for bit. It allocates nothing: the caller
 * gives the output, the room to work in, and, for an update, the earlier version. A package may come in parts: open it
 * with its first bytes, then hand over one section after the other.
 *
 *     fw_info info;
 *     size_t used;
 *     if (fw_read_info(package, package_bytes, &info, &used) != FW_OK) ...
 *     if (info.output_bytes > what_i_accept) ...
 *     uint8_t *output = malloc(info.output_bytes), *work = malloc(fw_work_bytes(&info));
 *     fw_status status = fw_decode(package, package_bytes, NULL, 0, output, info.output_bytes, work, fw_work_bytes(&info));
 *
 * Untrusted input is safe: every length is checked before it is used, nothing is read or written outside the buffers,
 * and the time is in proportion to the output. The output is to be used after FW_OK from fw_decode or fw_close only.
 */
#ifndef FEATHERWEIGHT_DECODER_H
#define FEATHERWEIGHT_DECODER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    FW_OK = 0,
    FW_MORE,    /* the bytes given end too early: give more of them */
    FW_FORMAT,  /* not a package, or one that breaks its format */
    FW_VERSION, /* a package of another version */
    FW_DAMAGED, /* a checksum differs */
    FW_BASE,    /* an update, and the earlier version is missing or another one */
    FW_ROOM     /* the output or the room to work in is too small */
} fw_status;

/* What a package says of itself. */
typedef struct {
    size_t output_bytes;
    uint8_t sha256[32];        /* of the output */
    int has_base;              /* whether it is an update */
    size_t base_bytes;         /* length of the earlier version */
    uint8_t base_sha256[32];   /* of the earlier version */
    size_t columns;            /* the most that a coded matrix has */
    uint32_t sections;         /* how many follow the header */
    const uint8_t *description; /* UTF-8 JSON inside the header, not ended by a zero */
    size_t description_bytes;
} fw_info;

/* A decoder between two sections; its fields are its own. */
typedef struct {
    fw_info info;
    const uint8_t *base;
    uint8_t *output;
    uint8_t *work;
    size_t place;
    uint32_t section;
} fw_decoder;

/* Read the header at the start of `bytes`; `used` is its length. FW_MORE: give more bytes. */
fw_status fw_read_info(const uint8_t *bytes, size_t count, fw_info *info, size_t *used);

/* Bytes of room that a decoder needs to work in: about 5 MB, and 20 for each column. */
size_t fw_work_bytes(const fw_info *info);

/* Begin. `base` is NULL where info.has_base is 0. `work` may have any alignment. */
fw_status fw_open(fw_decoder *decoder, const fw_info *info, const uint8_t *base, size_t base_bytes, uint8_t *output,
                  size_t output_bytes, uint8_t *work, size_t work_bytes);

/* Decode the section at the start of `bytes`; `used` is its length. FW_MORE: give more bytes, nothing has happened.
 * Afterwards decoder->place bytes of the output are decoded; their checksum is known at the end only. */
fw_status fw_section(fw_decoder *decoder, const uint8_t *bytes, size_t count, size_t *used);

/* End: FW_OK if all sections were decoded and the output is what was packed. */
fw_status fw_close(fw_decoder *decoder);

/* All of the above for a package that is in memory whole. */
fw_status fw_decode(const uint8_t *package, size_t count, const uint8_t *base, size_t base_bytes, uint8_t *output,
                    size_t output_bytes, uint8_t *work, size_t work_bytes);

/* One sentence for a status. */
const char *fw_message(fw_status status);

#ifdef __cplusplus
}
#endif

#endif
