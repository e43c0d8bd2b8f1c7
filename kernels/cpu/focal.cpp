// Loss, gradient and confusion counts in one pass over the logits: the arithmetic of eager.py, a tile of cells at a time,
// so that all but the first read and the last write stay in the first-level cache.
//
// compiled.py has it built by the C++ compiler of the machine, once for each dtype of the logits: LOGIT (float, double or
// BFloat16) and REAL, the type of the arithmetic (float or double). A loop over `j` runs over the cells of a tile without
// branches or calls, for the compiler to vectorise. NaN and infinity matter, so no -ffast-math.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

template <typename To, typename From>
inline To bits(From from) {
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

struct BFloat16 { uint16_t raw; };

inline float wide(float x) { return x; }
inline double wide(double x) { return x; }
inline float wide(BFloat16 x) { return bits<float>(uint32_t(x.raw) << 16); }
inline void store(float& to, float x) { to = x; }
inline void store(double& to, double x) { to = x; }
inline void store(BFloat16& to, float x) {
  uint32_t raw = bits<uint32_t>(x);
  uint32_t rounded = (raw + 0x7fff + ((raw >> 16) & 1)) >> 16;  // to nearest, ties to even
  to.raw = uint16_t(x != x ? 0x7fc0 : rounded);
}

inline double power_of_two(double x) { return std::exp2(x); }
// 2^x for x <= 0: x = n + f with |f| <= 1/2, the power of f as a polynomial. What float can hold only as a subnormal
// comes to 0; the loss has its own way there.
inline float power_of_two(float x) {
  const float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves n in the lowest bits
  float shifted = x + round;
  float f = x - (shifted - round);
  float p = 1.535336188319500e-4f;
  p = p * f + 1.339887440266574e-3f;
  p = p * f + 9.618437357674640e-3f;
  p = p * f + 5.550332471162809e-2f;
  p = p * f + 2.402264791363012e-1f;
  p = p * f + 6.931472028550421e-1f;
  p = p * f + 1.0f;
  float value = bits<float>(bits<uint32_t>(p) + (bits<uint32_t>(shifted) << 23));
  return x < -126.0f ? 0.0f : (x != x ? x : value);
}

inline double logarithm(double x) { return std::log(x); }
// log x for normal x: x = 2^n m with m in [sqrt(1/2), sqrt(2)); Cephes' polynomial for log m.
inline float logarithm(float x) {
  uint32_t raw = bits<uint32_t>(x);
  int32_t n = int32_t(raw - 0x3f3504f3u) >> 23;
  float f = bits<float>(raw - (uint32_t(n) << 23)) - 1.0f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  float square = f * f, scale = float(n);
  float low = f * square * p - 2.12194440e-4f * scale - 0.5f * square;
  return x != x ? x : low + f + 0.693359375f * scale;
}

// log(1 + x) for x >= 0; the second term is what 1 + x rounds away
inline REAL logarithm_of_one_plus(REAL x) {
  REAL sum = 1 + x;
  return logarithm(sum) + (x - (sum - 1)) / sum;
}
inline double power(double x, double y) { return std::pow(x, y); }
inline float power(float x, float y) { return power_of_two(y * 1.44269504f * logarithm(x)); }

// As `_Call` in compiled.py lays it out. Strides count elements; a null pointer is an output that is not wanted.
struct Call {
  const LOGIT* logits;   // (outer, classes, inner)
  const void* labels;    // (outer, inner)
  const REAL* weight;    // (classes,); null weighs every class 1
  LOGIT* gradient;       // (outer, classes, inner)
  REAL* losses;          // (outer, inner), contiguous
  REAL* loss;            // the sum of the losses; null where only counts are wanted
  int64_t outer, classes, inner, tile, chunk;
  int64_t logits_strides[3], gradient_strides[3], labels_strides[2];
  int64_t label_type;    // the place of their dtype in `_LABELS` of compiled.py
  int64_t ignore_index;
  int64_t divisor;       // of the weights; 0 stands for the number of cells that are not ignored
  double gamma;

  int64_t tiles_across() const { return (inner + tile - 1) / tile; }
  int64_t tiles() const { return outer * tiles_across(); }
  int64_t chunks() const { return (tiles() + chunk - 1) / chunk; }
};

// Calls `use` with the labels as a pointer to their own type.
template <typename Use>
void with_labels(const Call& call, Use use) {
  switch (call.label_type) {
    case 0: return use(static_cast<const uint8_t*>(call.labels));
    case 1: return use(static_cast<const uint16_t*>(call.labels));
    case 2: return use(static_cast<const uint32_t*>(call.labels));
    case 3: return use(static_cast<const uint64_t*>(call.labels));
    case 4: return use(static_cast<const int8_t*>(call.labels));
    case 5: return use(static_cast<const int16_t*>(call.labels));
    case 6: return use(static_cast<const int32_t*>(call.labels));
    default: return use(static_cast<const int64_t*>(call.labels));
  }
}

// Adds up how many cells are ignored, and how many are not and yet hold no class.
template <bool dense, typename Label>
void inspect(const Call& call, const Label* labels, int64_t& ignored, int64_t& bad) {
  const int64_t step = dense ? 1 : call.labels_strides[1], classes = call.classes, ignore_index = call.ignore_index;
  for (int64_t o = 0; o < call.outer; ++o) {
    const Label* row = labels + o * call.labels_strides[0];
    for (int64_t i = 0; i < call.inner; ++i) {
      int64_t label = int64_t(row[i * step]), skip = label == ignore_index;
      ignored += skip;
      bad += (1 - skip) & int64_t(uint64_t(label) >= uint64_t(classes));
    }
  }
}

struct Pass {
  const Call& call;
  const double scale;  // of the weights
  const int64_t classes, width;
  std::vector<REAL> powers;  // (classes, width): the logits, then their exponentials, then the gradient
  std::vector<REAL> top, hit, others, own, slope;
  std::vector<int32_t> label, prediction;
  std::vector<double> sums;
  bool skips = false;

  Pass(const Call& call, double scale)
      : call(call), scale(scale), classes(call.classes), width(call.tile), powers(classes * width), top(width),
        hit(width), others(width), own(width), slope(width), label(width), prediction(width), sums(width) {}

  // -1 for a cell that is ignored
  template <typename Label>
  void read_labels(const Label* labels, int64_t outer, int64_t first, int64_t n) {
    const Label* from = labels + outer * call.labels_strides[0] + first * call.labels_strides[1];
    int32_t least = 0;
    for (int64_t j = 0; j < n; ++j) {
      int64_t found = int64_t(from[j * call.labels_strides[1]]);
      label[j] = found == call.ignore_index ? -1 : int32_t(found);
      least = label[j] < least ? label[j] : least;
    }
    skips = least < 0;
  }

  // the largest logit, and the first class that has it
  template <bool dense>
  void read_logits(int64_t outer, int64_t first, int64_t n) {
    const int64_t step = dense ? 1 : call.logits_strides[2];
    const LOGIT* from = call.logits + outer * call.logits_strides[0] + first * call.logits_strides[2];
    REAL* __restrict best = top.data();
    int32_t* __restrict which = prediction.data();
    for (int64_t j = 0; j < n; ++j) best[j] = wide(from[j * step]), which[j] = 0;
    for (int64_t c = 0; c < classes; ++c) {
      const LOGIT* __restrict row = from + c * call.logits_strides[1];
      REAL* __restrict to = powers.data() + c * width;
      for (int64_t j = 0; j < n; ++j) {
        REAL z = wide(row[j * step]), b = best[j];
        bool better = !(z <= b) & (b == b);  // NaN is the largest, and the first one stays
        to[j] = z;
        best[j] = better ? z : b;
        which[j] = better ? int32_t(c) : which[j];
      }
    }
  }

  void exponentials(int64_t n) {
    const int32_t* __restrict t = label.data();
    const REAL* __restrict m = top.data();
    REAL *__restrict h = hit.data(), *__restrict r = others.data(), *__restrict z_t = own.data();
    for (int64_t j = 0; j < n; ++j) h[j] = r[j] = z_t[j] = 0;
    for (int64_t c = 0; c < classes; ++c) {
      REAL* __restrict e = powers.data() + c * width;
      for (int64_t j = 0; j < n; ++j) {
        REAL z = e[j], one = power_of_two((z - m[j]) * REAL(1.4426950408889634));
        bool target = t[j] == int32_t(c);
        h[j] = target ? one : h[j];
        z_t[j] = target ? z : z_t[j];
        r[j] += target ? REAL(0) : one;
        e[j] = one;
      }
    }
  }

  // the loss into `own`, and what the exponentials are multiplied by into `slope`
  void losses(int64_t n) {
    const REAL floor = std::numeric_limits<REAL>::min() / std::numeric_limits<REAL>::epsilon();
    const REAL largest = std::numeric_limits<REAL>::max(), gamma = REAL(call.gamma), factor = REAL(scale);
    const REAL *__restrict h = hit.data(), *__restrict r = others.data(), *__restrict m = top.data();
    const int32_t* __restrict t = label.data();
    REAL *__restrict a = slope.data(), *__restrict l = own.data();
    for (int64_t j = 0; j < n; ++j) a[j] = t[j] < 0 ? 0 : call.weight ? call.weight[t[j]] * factor : factor;
    if (gamma == 2) {
      for (int64_t j = 0; j < n; ++j) a[j] *= r[j] / (r[j] + h[j]);
    } else if (gamma != 1) {
      for (int64_t j = 0; j < n; ++j) {
        REAL miss = r[j] / (r[j] + h[j]);
        a[j] *= power(miss > floor ? miss : floor, gamma - 1);
      }
    }
    for (int64_t j = 0; j < n; ++j) {
      REAL sum = r[j] + h[j], rare = m[j] - l[j] + logarithm(sum), likely = logarithm_of_one_plus(r[j] / h[j]);
      REAL surprise = h[j] >= floor ? likely : rare;
      REAL loss = a[j] * (r[j] / sum) * surprise;
      l[j] = t[j] < 0 ? 0 : loss;
      REAL rise = gamma * h[j] * (surprise > largest ? largest : surprise);
      a[j] = t[j] < 0 ? 0 : a[j] * (r[j] + rise) / (sum * sum);
    }
  }

  template <bool dense>
  void write_gradient(int64_t outer, int64_t first, int64_t n) {
    const int64_t step = dense ? 1 : call.gradient_strides[2];
    LOGIT* from = call.gradient + outer * call.gradient_strides[0] + first * call.gradient_strides[2];
    const REAL *__restrict r = others.data(), *__restrict a = slope.data();
    const int32_t* __restrict t = label.data();
    for (int64_t c = 0; c < classes; ++c) {
      LOGIT* __restrict row = from + c * call.gradient_strides[1];
      REAL* __restrict e = powers.data() + c * width;
      if (skips)  // 0 * NaN: an ignored cell passes nothing on whatever its logits hold
        for (int64_t j = 0; j < n; ++j) e[j] = t[j] < 0 ? 0 : e[j];
      for (int64_t j = 0; j < n; ++j) store(row[j * step], (t[j] == int32_t(c) ? -r[j] : e[j]) * a[j]);
    }
  }

  void run(int64_t outer, int64_t first, int64_t n, int64_t* tally) {
    with_labels(call, [&](auto* labels) { read_labels(labels, outer, first, n); });
    call.logits_strides[2] == 1 ? read_logits<true>(outer, first, n) : read_logits<false>(outer, first, n);
    if (tally)
      for (int64_t j = 0; j < n; ++j)
        if (label[j] >= 0) ++tally[label[j] * classes + prediction[j]];
    if (!call.loss) return;
    exponentials(n);
    losses(n);
    if (call.losses) std::memcpy(call.losses + outer * call.inner + first, own.data(), n * sizeof(REAL));
    for (int64_t j = 0; j < n; ++j) sums[j] += double(own[j]);
    if (!call.gradient) return;
    call.gradient_strides[2] == 1 ? write_gradient<true>(outer, first, n) : write_gradient<false>(outer, first, n);
  }
};

}  // namespace

// How many cells are not ignored; -1 if one of them holds no class.
extern "C" int64_t cells_that_count(const Call* call) {
  int64_t ignored = 0, bad = 0;
  with_labels(*call, [&](auto* labels) {
    call->labels_strides[1] == 1 ? inspect<true>(*call, labels, ignored, bad)
                                 : inspect<false>(*call, labels, ignored, bad);
  });
  return bad ? -1 : call->outer * call->inner - ignored;
}

// Chunks first, first + step, ... of tiles, which are counted along inner, then outer: adds the counts to the tally,
// and writes the sum of the loss of each chunk. `kept` cells are not ignored.
extern "C" void run_chunks(const Call* call, int64_t kept, int64_t first, int64_t step, double* sums, int64_t* tally) {
  const int64_t divisor = call->divisor ? call->divisor : kept > 0 ? kept : 1;
  Pass pass(*call, 1.0 / double(divisor));
  const int64_t across = call->tiles_across(), tiles = call->tiles(), chunks = call->chunks();
  for (int64_t chunk = first; chunk < chunks; chunk += step) {
    const int64_t end = (chunk + 1) * call->chunk;
    for (int64_t tile = chunk * call->chunk; tile < (end < tiles ? end : tiles); ++tile) {
      int64_t column = tile % across * call->tile, left = call->inner - column;
      pass.run(tile / across, column, left < call->tile ? left : call->tile, tally);
    }
    sums[chunk] = 0;
    for (double& part : pass.sums) sums[chunk] += part, part = 0;
  }
}

// The loss from the sums of the chunks, in this order whoever ran them.
extern "C" void add_up(const Call* call, const double* sums) {
  double sum = 0;
  for (int64_t chunk = 0; chunk < call->chunks(); ++chunk) sum += sums[chunk];
  if (call->loss) *call->loss = REAL(sum);
}

// All of it on one thread; what `cells_that_count` gives, and nothing is written where that is -1.
extern "C" int64_t run_all(const Call* call, int64_t* tally) {
  const int64_t kept = cells_that_count(call);
  if (kept < 0) return kept;
  std::vector<double> sums(call->chunks());
  run_chunks(call, kept, 0, 1, sums.data(), tally);
  add_up(call, sums.data());
  return kept;
}
