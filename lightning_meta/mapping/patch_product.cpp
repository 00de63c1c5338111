// Convolutions and their gradients as products whose patches are never written to memory, behind `matrix_product.cpp`.
//
// Where a window sees an image from is found once. Beside an image there are zeros, which are nowhere.
#include <map>

namespace {

constexpr size_t KEPT = 64;  // shapes of images

// What moves over images of shape (images, height, width, channels): (vertical, horizontal).
struct Window {
  int64_t size[2], stride[2], dilation[2], padding[2];

  int64_t places(const int64_t* shape, int axis) const {
    return (shape[1 + axis] + 2 * padding[axis] - dilation[axis] * (size[axis] - 1) - 1) / stride[axis] + 1;
  }
};

// What is found once for each window on images of each shape.
template <class Found>
const Found& once(const int64_t* shape, const Window& window, Found (*find)(const int64_t*, const Window&)) {
  static thread_local std::map<std::vector<int64_t>, Found> found;
  std::vector<int64_t> key(shape, shape + 4);
  key.insert(key.end(), window.size, window.size + 8);
  const auto place = found.find(key);
  if (place == found.end() && found.size() >= KEPT) found.clear();
  return place == found.end() ? found.emplace(key, find(shape, window)).first->second : place->second;
}

// Where every tap of the window sees a pixel from every place, (taps, images * places).
Places seen(const int64_t* shape, const Window& window) {
  const int64_t down = window.places(shape, 0), across = window.places(shape, 1);
  Places found;
  for (int64_t tap = 0; tap < window.size[0] * window.size[1]; ++tap)
    for (int64_t place = 0; place < shape[0] * down * across; ++place) {
      const int64_t image = place / across / down, i = place / across % down, j = place % across;
      const int64_t y = i * window.stride[0] + tap / window.size[1] * window.dilation[0] - window.padding[0];
      const int64_t x = j * window.stride[1] + tap % window.size[1] * window.dilation[1] - window.padding[1];
      const bool inside = y >= 0 && y < shape[1] && x >= 0 && x < shape[2];
      found.push_back(inside ? ((image * shape[1] + y) * shape[2] + x) * shape[3] : NOWHERE);
    }
  return found;
}

// Pixels that agree modulo the stride, so that the same taps see them, and from which places, (taps, pixels).
struct Phase {
  Places pixels, taps, places;
};

std::vector<Phase> phases(const int64_t* shape, const Window& window) {
  const int64_t all = shape[0] * window.places(shape, 0) * window.places(shape, 1);
  std::vector<Phase> found(window.stride[0] * window.stride[1]);
  const auto phase = [&](int64_t y, int64_t x) -> Phase& {
    return found[y % window.stride[0] * window.stride[1] + x % window.stride[1]];
  };
  for (int64_t pixel = 0; pixel < shape[0] * shape[1] * shape[2]; ++pixel) {
    const int64_t y = pixel / shape[2] % shape[1] + window.padding[0], x = pixel % shape[2] + window.padding[1];
    phase(y, x).pixels.push_back(pixel * shape[3]);
  }
  const Places pixels = seen(shape, window);
  for (int64_t tap = 0; tap < window.size[0] * window.size[1]; ++tap) {
    Phase& one = phase(tap / window.size[1] * window.dilation[0], tap % window.size[1] * window.dilation[1]);
    Places places(shape[0] * shape[1] * shape[2], NOWHERE);  // by the pixel that is seen
    for (int64_t place = 0; place < all; ++place)
      if (const int64_t pixel = pixels[tap * all + place]; pixel != NOWHERE) places[pixel / shape[3]] = place;
    one.taps.push_back(tap * shape[3]);
    for (const int64_t pixel : one.pixels) one.places.push_back(places[pixel / shape[3]]);
  }
  return found;
}

}  // namespace

// Programs that Inductor writes call these by their names. C is contiguous, of B rows or columns are. Images are
// channels last, and have a multiple of sixteen channels.

// The patches of images times B.
extern "C" void lightning_meta_patches_product(const Tensor& images, const Tensor& b, const Tensor& c,
                                               const Window& window) {
  const Places &places = once(images.sizes, window, seen), whole{0};
  const int64_t taps = window.size[0] * window.size[1], rows = c.sizes[0];
  product({images.data, places.data(), 1, rows, taps, images.sizes[3], 1}, b.right(whole), c.data,
          steps(rows, c.sizes[1]));
}

// A times the patches of images.
extern "C" void lightning_meta_product_patches(const Tensor& a, const Tensor& images, const Tensor& c,
                                               const Window& window) {
  const Places &places = once(images.sizes, window, seen), rows = steps(a.sizes[0]);
  const Places c_down = steps(a.sizes[0], c.sizes[1]);
  const int64_t channels = images.sizes[3], taps = window.size[0] * window.size[1];
  const int64_t threads = threads_for(a.sizes[0] * a.sizes[1] * c.sizes[1]);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t tap = 0; tap < taps; ++tap)
    product(a.left(rows), {images.data, places.data() + tap * a.sizes[1], 1, channels, 0, 1}, c.data + tap * channels,
            c_down);
}

// The images of which every pixel is the sum of all that A B holds of it, as patches; A and B are contiguous.
extern "C" void lightning_meta_product_images(const Tensor& a, const Tensor& b, const Tensor& images,
                                              const Window& window) {
  const int64_t filters = a.sizes[1], channels = images.sizes[3];
  for (const Phase& phase : once(images.sizes, window, phases)) {
    const int64_t rows = phase.pixels.size(), taps = phase.taps.size();
    product({a.data, phase.places.data(), filters, rows, taps, filters, 1},
            {b.data, phase.taps.data(), filters, channels, b.strides[0], 1}, images.data, phase.pixels);
  }
}
