/* How many bytes hold each value: by comparing where none is above 15, which takes a quarter of the time of tables.
   native_counter.py has it built. */
#include <stdint.h>
#include <string.h>

#ifdef __AVX2__
enum { WIDE = 32 };
#else
enum { WIDE = 16 };
#endif
/* A piece stays in the first-level cache while it is gone through twice, and no 32-bit count of it overflows. */
enum { PIECE = 1 << 14, WORD = 8, TABLES = 4 };

typedef uint8_t Lanes __attribute__((vector_size(WIDE)));

/* Counts of cells up to `most`, at most 15; WIDE divides their number. Inline, so that the compiler knows `most` and
   keeps all lanes in registers. */
static inline __attribute__((always_inline)) void compare(
    const uint8_t *cells, int64_t size, int most, int64_t *counts)
{
    counts[0] += size;
    for (int64_t start = 0; start < size; start += 255 * WIDE) { /* more would overflow a lane */
        const int64_t end = size - start < 255 * WIDE ? size : start + 255 * WIDE;
        Lanes found[15] = {{0}};
        for (int64_t at = start; at < end; at += WIDE) {
            Lanes here;
            memcpy(&here, cells + at, WIDE);
            for (int k = 0; k < most; k++)
                found[k] -= (Lanes)(here == (uint8_t)(k + 1)); /* true is -1 */
        }
        for (int k = 0; k < most; k++) {
            int64_t number = 0;
            for (int lane = 0; lane < WIDE; lane++)
                number += found[k][lane];
            counts[k + 1] += number;
            counts[0] -= number;
        }
    }
}

/* Counts of all values in a piece, or less, that WORD divides. */
static void tabulate(const uint8_t *cells, int64_t size, int64_t *counts)
{
    uint64_t kept[PIECE / WORD]; /* words that are not all zeros, found without a branch to mispredict */
    int64_t words = 0;
    for (int64_t at = 0; at < size; at += WORD) {
        memcpy(&kept[words], cells + at, WORD);
        words += kept[words] != 0;
    }
    counts[0] += size - words * WORD;
    uint32_t tables[TABLES][256] = {{0}}; /* of one table, each increment would wait for the last */
    for (int64_t n = 0; n < words; n++)
        for (int k = 0; k < WORD; k++)
            tables[k % TABLES][kept[n] >> 8 * k & 255]++;
    for (int k = 0; k < TABLES; k++)
        for (int label = 0; label < 256; label++)
            counts[label] += tables[k][label];
}

/* Add to counts (256,) how many of the cells hold each label 0..255. */
void count_cells(const uint8_t *cells, int64_t size, int64_t *counts)
{
    for (int64_t start = 0; start < size; start += PIECE) {
        const uint8_t *piece = cells + start;
        const int64_t length = size - start < PIECE ? size - start : PIECE, whole = length - length % WIDE;
        uint8_t top = 0;
        for (int64_t at = 0; at < whole; at++)
            top = piece[at] > top ? piece[at] : top;
        if (top == 0)
            counts[0] += whole;
        else if (top <= 4)
            compare(piece, whole, 4, counts);
        else if (top <= 9)
            compare(piece, whole, 9, counts);
        else if (top <= 15)
            compare(piece, whole, 15, counts);
        else
            tabulate(piece, whole, counts);
        for (int64_t at = whole; at < length; at++)
            counts[piece[at]]++;
    }
}
