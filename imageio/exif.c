/* The orientation in a JPEG's EXIF block. The block is a small TIFF structure: byte order, the
 * offset of the first directory, and its 12-byte entries. Nothing else of it is read, and whatever
 * does not hold together means "as it is". */
#include <string.h>

#include "base/checked.h"
#include "imageio/picture_internal.h"

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4, ENTRY_BYTES = 12 };

static uint32_t load(const uint8_t *p, unsigned bytes, int big_endian) {
    if (!big_endian) return (uint32_t)cvq_load_le(p, bytes);
    return bytes == 2 ? cvq_load_be16(p) : cvq_load_be32(p);
}

int cvq_exif_orientation(const uint8_t *tiff, size_t size) {
    if (size < 8) return 1;
    int big_endian;
    if (memcmp(tiff, "II*\0", 4) == 0)
        big_endian = 0;
    else if (memcmp(tiff, "MM\0*", 4) == 0)
        big_endian = 1;
    else
        return 1;

    const uint32_t directory = load(tiff + 4, 4, big_endian);
    if (!cvq_range_within(directory, 2, size)) return 1;
    const uint32_t entries = load(tiff + directory, 2, big_endian);
    uint32_t orientation = 1;
    for (uint32_t i = 0; i < entries; i++) {
        const uint64_t at = (uint64_t)directory + 2 + (uint64_t)i * ENTRY_BYTES;
        if (!cvq_range_within(at, ENTRY_BYTES, size)) break;
        const uint8_t *entry = tiff + at; /* tag 2, type 2, count 4, value 4 */
        if (load(entry, 2, big_endian) != TAG_ORIENTATION || load(entry + 4, 4, big_endian) != 1)
            continue;
        const uint32_t type = load(entry + 2, 2, big_endian);
        /* Of several the last counts, as in PIL. */
        if (type == TYPE_SHORT) orientation = load(entry + 8, 2, big_endian);
        if (type == TYPE_LONG) orientation = load(entry + 8, 4, big_endian);
    }
    return orientation >= 1 && orientation <= 8 ? (int)orientation : 1;
}
