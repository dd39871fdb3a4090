/* fwdecode: a package on the command line.
 *
 *     fwdecode in.fwp out.tflite              decode
 *     fwdecode in.fwp out.tflite old.tflite   decode an update of old.tflite
 *
 * Exit codes: 0 done, 1 the package is refused, 2 the call or a file is off. The output is written through a temporary
 * neighbour, so a reader sees the old file or the new one, whole.
 */
#include "featherweight_decoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *program = "fwdecode";

static int complain(const char *what, const char *why) {
    fprintf(stderr, "%s: %s: %s\n", program, what, why);
    return 2;
}

/* A file's content, to be freed; NULL where it can't be read. */
static uint8_t *content_of(const char *path, size_t *count) {
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    size_t room = 0;
    *count = 0;
    if (!file) return NULL;
    for (;;) {
        uint8_t *larger;
        if (*count == room) {
            room = room ? room * 2 : 1 << 16;
            larger = realloc(data, room);
            if (!larger) break;
            data = larger;
        }
        *count += fread(data + *count, 1, room - *count, file);
        if (feof(file) && !ferror(file)) {
            fclose(file);
            return data;
        }
        if (ferror(file)) break;
    }
    fclose(file);
    free(data);
    return NULL;
}

static int write_whole(const char *path, const uint8_t *data, size_t count) {
    char *temporary = malloc(strlen(path) + sizeof ".partial");
    FILE *file;
    int failed = 1;
    if (!temporary) return 1;
    strcpy(temporary, path);
    strcat(temporary, ".partial");
    file = fopen(temporary, "wb");
    if (file) {
        failed = fwrite(data, 1, count, file) != count;
        failed |= fclose(file) != 0;
        if (!failed) failed = rename(temporary, path) != 0;
        if (failed) remove(temporary);
    }
    free(temporary);
    return failed;
}

static int decode(const uint8_t *package, size_t count, const uint8_t *base, size_t base_bytes, const char *path) {
    fw_info info;
    size_t used;
    fw_status status = fw_read_info(package, count, &info, &used);
    uint8_t *output = NULL, *work = NULL;
    int code = 1;
    if (status == FW_OK) {
        output = malloc(info.output_bytes ? info.output_bytes : 1);
        work = malloc(fw_work_bytes(&info));
        status = output && work ? fw_decode(package, count, base, base_bytes, output, info.output_bytes, work,
                                            fw_work_bytes(&info))
                                : FW_ROOM;
    }
    if (status != FW_OK)
        fprintf(stderr, "%s: %s\n", program, fw_message(status));
    else
        code = write_whole(path, output, info.output_bytes) ? complain(path, "can't be written") : 0;
    free(output);
    free(work);
    return code;
}

int main(int count, char **words) {
    uint8_t *package, *base = NULL;
    size_t package_bytes, base_bytes = 0;
    int code;
    if (count != 3 && count != 4) {
        fprintf(stderr, "usage: fwdecode package output [earlier version]\n");
        return 2;
    }
    package = content_of(words[1], &package_bytes);
    if (!package) return complain(words[1], "can't be read");
    if (count == 4) {
        base = content_of(words[3], &base_bytes);
        if (!base) {
            free(package);
            return complain(words[3], "can't be read");
        }
    }
    code = decode(package, package_bytes, base, base_bytes, words[2]);
    free(package);
    free(base);
    return code;
}
