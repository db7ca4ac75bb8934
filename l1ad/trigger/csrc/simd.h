/* The few vector operations that the generated kernels are made of, for AVX2 and AVX-512.
 *
 * A value is "planar": one vector holds the int16 codes of one element for B events in their natural order. UNPACKLO16
 * and UNPACKHI16 interleave two planar vectors within each 128-bit lane, so that a 32-bit lane holds the two elements
 * of one event; PACK32 is their inverse on 32-bit sums and restores the order of the events.
 */
#include <immintrin.h>

/* Hides from the compiler where a table lies: known weights would be moved through scalar registers one by one instead
 * of being broadcast from memory. */
#define HIDE(pointer) __asm__ volatile("" : "+r"(pointer))

/* Ends a step of a sum: without it compilers regroup the additions, keep every product alive and run out of
 * registers. */
#define STEP(sum, value) do { (sum) = (value); __asm__("" : "+" VECTOR_REGISTER(sum)); } while (0)

#if defined(__AVX512BW__)

typedef __m512i V;
#define VECTOR_REGISTER "v"
#define LOAD(p) _mm512_loadu_si512((const void *)(p))
#define STORE(p, v) _mm512_storeu_si512((void *)(p), (v))
#define ZERO() _mm512_setzero_si512()
#define SET32(c) _mm512_set1_epi32(c)
#define ADD16 _mm512_add_epi16
#define ADD32 _mm512_add_epi32
#define SHIFT_BYTE(v) _mm512_slli_epi16((v), 8)
#define UNPACKLO16 _mm512_unpacklo_epi16
#define UNPACKHI16 _mm512_unpackhi_epi16
#define UNPACKLO32 _mm512_unpacklo_epi32
#define UNPACKHI32 _mm512_unpackhi_epi32
#define UNPACKLO64 _mm512_unpacklo_epi64
#define UNPACKHI64 _mm512_unpackhi_epi64
#define PACK32 _mm512_packs_epi32
#define MADD16 _mm512_madd_epi16
#define MADD8 _mm512_maddubs_epi16
#if defined(__AVX512VNNI__)
#define DOT16 _mm512_dpwssd_epi32
#define DOT8 _mm512_dpbusd_epi32
#endif
#define LANES 4

static inline V load_rows(const int16_t *p, int64_t stride)
{
    V v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)p));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 8 * stride)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 16 * stride)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 24 * stride)), 3);
}

/* 32-bit sums of unpacked values, (lo, hi), to B natural int32. */
static inline void store_sums(int32_t *p, V lo, V hi)
{
    const V first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const V second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    STORE(p, _mm512_permutex2var_epi64(lo, first, hi));
    STORE(p + 16, _mm512_permutex2var_epi64(lo, second, hi));
}

#else

typedef __m256i V;
#define VECTOR_REGISTER "x"
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), (v))
#define ZERO() _mm256_setzero_si256()
#define SET32(c) _mm256_set1_epi32(c)
#define ADD16 _mm256_add_epi16
#define ADD32 _mm256_add_epi32
#define SHIFT_BYTE(v) _mm256_slli_epi16((v), 8)
#define UNPACKLO16 _mm256_unpacklo_epi16
#define UNPACKHI16 _mm256_unpackhi_epi16
#define UNPACKLO32 _mm256_unpacklo_epi32
#define UNPACKHI32 _mm256_unpackhi_epi32
#define UNPACKLO64 _mm256_unpacklo_epi64
#define UNPACKHI64 _mm256_unpackhi_epi64
#define PACK32 _mm256_packs_epi32
#define MADD16 _mm256_madd_epi16
#define MADD8 _mm256_maddubs_epi16
#define LANES 2

static inline V load_rows(const int16_t *p, int64_t stride)
{
    V v = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p));
    return _mm256_inserti128_si256(v, _mm_loadu_si128((const __m128i *)(p + 8 * stride)), 1);
}

static inline void store_sums(int32_t *p, V lo, V hi)
{
    STORE(p, _mm256_permute2x128_si256(lo, hi, 0x20));
    STORE(p + 8, _mm256_permute2x128_si256(lo, hi, 0x31));
}

#endif

#ifndef DOT16
#define DOT16(sum, x, w) ADD32((sum), MADD16((x), (w)))
#endif

/* Eight words of B rows to eight planar vectors: lane l of row vector r is row 8 l + r. */
static inline void transpose_words(const int16_t *p, int64_t stride, V out[8])
{
    V r[8], a[8], b[8];
    for (int i = 0; i < 8; i++)
        r[i] = load_rows(p + i * stride, stride);
    for (int i = 0; i < 4; i++) {
        a[2 * i] = UNPACKLO16(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = UNPACKHI16(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = UNPACKLO32(a[i], a[i + 2]);
        b[i + 1] = UNPACKHI32(a[i], a[i + 2]);
        b[i + 2] = UNPACKLO32(a[i + 1], a[i + 3]);
        b[i + 3] = UNPACKHI32(a[i + 1], a[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        out[2 * i] = UNPACKLO64(b[i], b[i + 4]);
        out[2 * i + 1] = UNPACKHI64(b[i], b[i + 4]);
    }
}
